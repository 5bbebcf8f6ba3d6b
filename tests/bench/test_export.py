"""Exported states score as the run itself did: in peft and transformers, and in vLLM."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from exported import adapted, base, evaluated, held_out_loss, merged, merged_from, task_of
from killing import Killable

from bench.journal.file import JournalWriter, read_journal


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Killable]:
    """A finished run for each set of options, made once."""
    made: dict[str, Killable] = {}

    def run(executor: str, **changes: Any) -> Killable:
        key = f"{executor}{changes}"
        if key not in made:
            made[key] = Killable.make(tmp_path_factory.mktemp("run"), executor, **changes).here()
        return made[key]

    return run


@pytest.mark.parametrize("workload", ["lozo", "lozo-m"])
def test_the_adapter_scores_as_the_run_did(bench, runs, tmp_path, workload):
    run = runs("eager", **({} if workload == "lozo" else {"workload": workload, "learning_rate": 3e-3}))
    outcome = bench("export", run.id, "--state", "last", "--output", str(tmp_path / "a"), "--results", str(run.folder))
    assert outcome.code == 0, outcome.err
    facts = outcome.json
    assert facts["step"] == 30 and facts["rank"] == 2 * 8 and facts["error"] < 1e-3  # eight epochs of V in 30 steps
    assert abs(held_out_loss(base(run), run) - evaluated(run, "eval")) > 1e-2
    assert held_out_loss(adapted(run, tmp_path / "a"), run) == pytest.approx(evaluated(run, "eval"), abs=1e-5)


@pytest.mark.parametrize("targets", ["q_proj,v_proj", "all"])
def test_a_trained_adapter_is_exported_as_it_is(bench, runs, tmp_path, targets):
    run = runs("eager", workload="mezo", scope="adapter", learning_rate=3e-2, adapter_targets=targets, adapter_alpha=12)
    for format, load in (("peft", lambda folder: adapted(run, folder)), ("merged", merged)):
        folder, named = tmp_path / format, ("--state", "last", "--format", format)
        outcome = bench("export", run.id, *named, "--output", str(folder), "--results", str(run.folder))
        assert outcome.code == 0, outcome.err
        assert outcome.json["error"] <= 1e-6
        assert held_out_loss(load(folder), run) == pytest.approx(evaluated(run, "eval"), abs=1e-5)
    assert abs(held_out_loss(base(run), run) - evaluated(run, "eval")) > 1e-2
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["lora_alpha"] == 12
    refused = bench("export", run.id, "--rank", "4", "--output", str(tmp_path / "b"), "--results", str(run.folder))
    assert refused.code == 2 and "the run trained an adapter of rank 8" in refused.err


def test_a_reduced_adapter_states_its_error(bench, runs, tmp_path):
    run, errors = runs("eager"), []
    for rank in (1, 4, 12):
        folder = tmp_path / str(rank)
        outcome = bench("export", run.id, "--rank", str(rank), "--output", str(folder), "--results", str(run.folder))
        errors.append(outcome.json["error"])
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["r"] == config["lora_alpha"] == rank
        assert f"{errors[-1]:.2e}" in outcome.err
        exact = merged_from(bench, run, tmp_path / f"m{rank}")
        missed = distance(adapted(run, folder).merge_and_unload(), exact)
        assert missed / distance(base(run), exact) == pytest.approx(errors[-1], rel=1e-2)
    assert errors[0] > errors[1] > errors[2] > 0


@torch.no_grad()
def distance(a: Any, b: Any) -> float:
    return float(sum((p - q).square().sum() for p, q in zip(a.parameters(), b.parameters(), strict=True)) ** 0.5)


@pytest.mark.parametrize(
    ("executor", "changes"),
    [
        ("eager", {}),
        ("eager", {"workload": "mezo", "scope": "full", "learning_rate": 1e-4}),
        ("eager", {"workload": "factorized", "rank": 4, "learning_rate": 1e-4}),
        ("eager", {"workload": "one-sided", "queries": 3, "weight_decay": 5.0, "lr_schedule": "cosine", "lr_warmup": 3}),
        ("official", {}),
        ("official", {"workload": "mezo", "learning_rate": 1e-4}),
    ],
)
def test_merged_weights_score_as_the_run_did(bench, runs, tmp_path, executor, changes):
    run = runs(executor, **changes)
    folder = tmp_path / "m"
    outcome = bench(
        "export", run.id, "--format", "merged", "--state", "last", "--output", str(folder), "--results", str(run.folder)
    )
    assert outcome.code == 0, outcome.err
    assert held_out_loss(merged(folder), run) == pytest.approx(evaluated(run, "eval"), abs=1e-5)
    assert (folder / "tokenizer.json").exists()


def test_the_best_state_is_the_one_of_lowest_dev_loss(bench, runs, tmp_path):
    run = runs("eager", learning_rate=0.05)  # too fast to end at its best
    dev = {found.step: found.loss for found in run.session.evaluations if found.split == "dev"}
    best = min(dev, key=dev.__getitem__)
    assert best < max(dev)
    outcome = bench("export", run.id, "--format", "merged", "--output", str(tmp_path / "m"), "--results", str(run.folder))
    assert outcome.json["step"] == best
    assert held_out_loss(merged(tmp_path / "m"), run) == pytest.approx(evaluated(run, "best"), abs=1e-5)


def test_the_journal_has_the_rate_of_each_step_and_decay_leaves_no_factors(bench, runs, tmp_path):
    run = runs("eager", workload="one-sided", queries=3, weight_decay=5.0, lr_schedule="cosine", lr_warmup=3)
    steps = run.journal.sessions[0].steps
    assert [len(step.losses) for step in steps] == [4] * 30 and [len(step.projected_gradients) for step in steps] == [3] * 30
    rates = [step.learning_rate for step in steps]
    assert rates[:4] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3]) and rates[16] < 6e-4 and 0 < rates[29] < 1e-5
    refused = bench("export", run.id, "--output", str(tmp_path / "a"), "--results", str(run.folder))
    assert refused.code == 2 and "decayed" in refused.err and "--rank" in refused.err


def test_dense_changes_become_adapters_by_svd(bench, runs, tmp_path):
    run, folder = runs("official"), str(tmp_path / "a")
    refused = bench("export", run.id, "--output", folder, "--results", str(run.folder))
    assert refused.code == 2 and "--rank" in refused.err and "--format merged" in refused.err
    outcome = bench("export", run.id, "--rank", "16", "--state", "last", "--output", folder, "--results", str(run.folder))
    assert outcome.json["error"] < 1e-2
    assert held_out_loss(adapted(run, tmp_path / "a"), run) == pytest.approx(evaluated(run, "eval"), abs=1e-3)


def test_vllm_serves_merged_weights_and_an_adapter_and_scores_as_the_runs_did(bench, runs, tmp_path, monkeypatch):
    """A run tunes the model, another goes on from its merged weights: one engine serves the first, and the second's adapter."""
    from bench.executors.vllm.variables import prepare_environment

    first = runs("eager")
    export = ["export", "--state", "last", "--output"]
    whole, adapter = tmp_path / "whole", tmp_path / "adapter"
    assert bench(*export, str(whole), first.id, "--format", "merged", "--results", str(first.folder)).code == 0
    second = replace(first, folder=tmp_path / "second", model=whole).here()
    assert bench(*export, str(adapter), second.id, "--results", str(second.folder)).code == 0
    prepare_environment("cpu")
    monkeypatch.setattr(torch, "set_num_threads", torch.set_num_threads)  # vLLM puts a stub in its place: put it back afterwards
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    engine = LLM(
        str(whole),
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        enable_lora=True,
        max_lora_rank=16,
        max_model_len=32,
        max_num_seqs=8,
        kv_cache_memory_bytes=1 << 22,
    )
    examples = task_of(first).eval
    wanted = [SamplingParams(max_tokens=1, logprob_token_ids=[o[0] for o in e.options], detokenize=False) for e in examples]
    prompts: Any = [{"prompt_token_ids": list(e.prompt)} for e in examples]
    served = {}
    for run, request in ((first, None), (second, LoRARequest("tuned", 1, str(adapter)))):
        losses = []
        outputs = engine.generate(prompts, wanted, lora_request=request, use_tqdm=False)
        for output, example in zip(outputs, examples, strict=True):
            found: Any = output.outputs[0].logprobs[0]
            scores = torch.tensor([found[option[0]].logprob for option in example.options])
            losses.append(-scores.log_softmax(0)[example.label])
        served[run.id] = float(torch.stack(losses).mean())
    engine.llm_engine.engine_core.shutdown()
    assert served == {run.id: pytest.approx(evaluated(run, "eval"), abs=1e-5) for run in (first, second)}
    assert abs(served[first.id] - served[second.id]) > 1e-3


def test_a_run_that_replays_to_another_state_is_refused(bench, runs, tmp_path):
    """One recorded loss is another: the state that comes out is not the one that was recorded."""
    run = runs("eager")
    journal = read_journal(run.journal_path)
    lines = [json.loads(line)["entry"] for line in run.journal_path.read_text().splitlines()]
    writer = JournalWriter(tmp_path / "20260101T000000Z_x_ab12.journal.jsonl")
    for entry in lines:
        if entry.get("event") == "step" and entry["step"] == 7:
            entry["losses"][0] += 1e-5
        writer.write(entry)
    writer.close()
    outcome = bench("export", str(writer.path), "--output", str(tmp_path / "a"))
    assert outcome.code == 2 and "the state before step 8 has checksum" in outcome.err and "Traceback" not in outcome.err
    assert journal.sessions[0].steps[7].losses != read_journal(writer.path).sessions[0].steps[7].losses
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "--output", "x"], ["nothing", "no run with a journal"]),
        (["RUN", "--output", "/proc/no"], ["--output /proc/no", "cannot be written"]),
        (["RUN", "--output", "."], ["--output .", "not empty"]),
        (["RUN", "--output", "x", "--format", "gguf"], ["gguf", "peft", "merged"]),
        (["RUN", "--output", "x", "--rank", "0"], ["--rank 0", "at least 1"]),
        (["RUN", "--output", "x", "--rank", "4", "--format", "merged"], ["--rank 4", "merged"]),
    ],
)
def test_bad_input_is_one_line(bench, runs, arguments, words):
    run = runs("eager")
    given = [run.id if word == "RUN" else word for word in arguments]
    outcome = bench("export", *given, "--results", str(run.folder))
    assert outcome.code == 2 and outcome.err.splitlines()[-1].startswith("error: ")
    assert all(word in outcome.err for word in words), outcome.err


def test_best_needs_an_evaluation_on_dev(bench, runs, tmp_path):
    run = runs("eager", eval_every=0)
    outcome = bench("export", run.id, "--state", "best", "--output", str(tmp_path / "a"), "--results", str(run.folder))
    assert outcome.code == 2 and "--eval-every" in outcome.err
