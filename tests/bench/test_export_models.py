"""Exports of other families than OPT, and what an export says of where its model came from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exported import adapted, base, evaluated, held_out_loss, merged_from
from killing import Killable


def gpt2(run: Killable) -> Killable:
    """The same run on a GPT-2, whose matrices are stored transposed and whose projections are fused."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    words = len(AutoTokenizer.from_pretrained(run.model))
    sizes = {
        "vocab_size": words,
        "n_positions": 64,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    quiet = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    GPT2LMHeadModel(GPT2Config(**sizes, **quiet, initializer_range=0.2)).save_pretrained(run.model)
    return run.here()


@pytest.mark.parametrize("executor", ["eager", "official"])
def test_a_gpt2_is_exported_both_ways(bench, tmp_path, executor):
    run = gpt2(Killable.make(tmp_path / "run", executor))
    found = evaluated(run, "eval")
    assert abs(held_out_loss(base(run), run) - found) > 1e-3
    exact = merged_from(bench, run, tmp_path / "m", "--state", "last")
    assert held_out_loss(exact, run) == pytest.approx(found, abs=1e-5)
    rank = [] if executor == "eager" else ["--rank", "32"]
    given = ["--state", "last", *rank, "--output", str(tmp_path / "a"), "--results", str(run.folder)]
    outcome = bench("export", run.id, *given)
    assert outcome.code == 0, outcome.err
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is True and config["target_modules"] == ["c_attn", "c_fc", "c_proj"]
    assert held_out_loss(adapted(run, tmp_path / "a"), run) == pytest.approx(found, abs=1e-5)


def test_a_merged_model_keeps_its_tokenizer_templates_and_settings(bench, tmp_path):
    run = Killable.make(tmp_path / "run", "eager")
    kept = [
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "generation_config.json",
        "special_tokens_map.json",
    ]
    for name in kept:
        (run.model / name).parent.mkdir(exist_ok=True)
        (run.model / name).write_text("{}")
    run, folder = run.here(), tmp_path / "m"
    merged_from(bench, run, folder)
    for name in (*kept[:2], "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (run.model / name).read_bytes(), name
    assert (folder / "generation_config.json").is_file()


def test_the_adapter_of_a_model_of_the_hub_names_the_hub(bench, tmp_path, monkeypatch):
    """A cache as the hub's library writes it: the snapshot's path is one machine's, the id is everybody's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    revision, made = "5f" * 20, Killable.make(tmp_path / "run", "eager")
    repository = tmp_path / "hub" / "models--somebody--tiny-opt"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots").mkdir()
    made.model.rename(repository / "snapshots" / revision)
    run = replace(made, model=Path("somebody/tiny-opt")).here()
    outcome = bench("export", run.id, "--state", "last", "--output", str(tmp_path / "a"), "--results", str(run.folder))
    assert outcome.code == 0, outcome.err
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("somebody/tiny-opt", revision)
    assert str(tmp_path) not in json.dumps(config)
