"""Checkpoints that are not whole, or not what they seem: one line that names the file or the tensors, on every way in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import FAMILIES
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, T5Config

from bench.errors import UsageError
from workloads.models.table import resolve_model
from workloads.models.weights import load_model, skeleton

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """checkpoint(family, change): a folder of that family's weights, `change` applied to its tensors."""

    def make(family: str = "llama", change: Callable[[Tensors], Tensors] = lambda tensors: tensors, **options: str) -> Path:
        folder = tmp_path / family.replace(", ", "-")
        config = AutoConfig.for_model(**FAMILIES[family])
        AutoModelForCausalLM.from_config(config).save_pretrained(folder, **options)
        for file in folder.glob("*.safetensors"):
            save_file(change(load_file(file)), file, metadata={"format": "pt"})
        return folder

    return make


def load(folder: Path) -> torch.nn.Module:
    return load_model(resolve_model(str(folder), "pretrained"), torch.float32, "cpu")


def edit(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_checkpoint_of_every_family_loads(family: str, checkpoint: Callable[..., Path]) -> None:
    assert load(checkpoint(family))(torch.tensor([[0, 5, 9]])).logits.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if "layernorm" not in k},
         r"lacks model.layers.0.input_layernorm.weight, .* and 1 more; it does not belong"),
        (lambda t: {k: v for k, v in t.items() if k != "model.layers.1.mlp.down_proj.weight"},
         r"lacks model.layers.1.mlp.down_proj.weight; "),
        (lambda t: {k.removeprefix("model."): v for k, v in t.items() if "lm_head" not in k}, r"lacks lm_head.weight"),
        (lambda t: t | {"model.layers.7.mlp.up_proj.weight": torch.zeros(3)},
         r"holds model.layers.7.mlp.up_proj.weight, which the model has not"),
        (lambda t: {f"_orig_mod.{k}": v for k, v in t.items()}, r"names begin with '_orig_mod.', as torch.compile leaves"),
        (lambda t: {f"module.{k}": v for k, v in t.items()}, r"names begin with 'module.', as DistributedDataParallel leaves"),
        (lambda t: {f"student.net.{k}": v for k, v in t.items()}, r"names begin with 'student.net.'; save them under"),
        (lambda t: t | {"model.layers.1.mlp.up_proj.weight": torch.zeros(3, 3)}, r"other shapes than its config.json says"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[Tensors], Tensors], message: str, checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(UsageError, match=rf"^--model \S+: .*{message}"):
        load(checkpoint(change=change))


def test_buffers_of_older_checkpoints_are_no_fault(checkpoint: Callable[..., Path]) -> None:
    load(checkpoint("llama", lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}))
    old = {"attn.bias": torch.zeros(1, 1, 64, 64), "attn.masked_bias": torch.zeros(())}
    load(checkpoint("gpt2", lambda t: t | {f"transformer.h.0.{name}": value for name, value in old.items()}))


def test_weight_files_that_are_not_whole(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(max_shard_size="60KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    kept = shard.read_bytes()
    for broken, message in (
        (kept[: len(kept) // 2], f"{shard.name} is damaged or cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "is a Git LFS pointer .* `git lfs pull`"),
        (None, f"index.json names {shard.name}, not in that folder"),
    ):
        shard.write_bytes(broken) if broken else shard.unlink()
        with pytest.raises(UsageError, match=message):
            resolve_model(str(folder), "pretrained")
    assert resolve_model(str(folder), "random").weights == "random"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama9"}, "does not know its model_type 'llama9'; update transformers"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}}, "--trust-remote-code"),
        ({"num_hidden_layers": "two"}, "cannot be loaded .*num_hidden_layers.* expected int"),
        ({"num_attention_heads": 5}, "cannot be loaded .*must be divisible by num_heads"),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be_built(changes: dict[str, object], message: str, checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=rf"^--model \S+: .*{message}"):
        skeleton(resolve_model(str(edit(checkpoint("opt"), **changes)), "pretrained"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "holds no object"),
        (b"{", "is no JSON that can be read"),
        (b'\xef\xbb\xbf{"model_type": "opt"}', "is no JSON that can be read .*BOM"),
        (b"{}", "has no model_type"),
        (b"\xff\xfe{}", "is no JSON that can be read"),
    ],
)
def test_config_files_that_say_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        resolve_model(str(tmp_path), "random")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (T5Config(vocab_size=320, d_model=64, d_kv=32, d_ff=96, num_layers=2, num_heads=2), "T5 is no causal language model"),
        (BertConfig(vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
                    architectures=["BertForMaskedLM"]), "BertForMaskedLM is no causal language model"),
    ],
)  # fmt: skip
def test_models_that_do_not_predict_the_next_token(config: object, message: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=message):
        skeleton(resolve_model(str(tmp_path), "random"))
