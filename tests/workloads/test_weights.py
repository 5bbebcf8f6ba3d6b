"""Seeded weights are the same wherever they are used, and the layout names what a scope moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bench.data import ModelSource
from workloads.models.scope import layout
from workloads.models.weights import load_model, seeded_weights


@pytest.mark.parametrize("architecture", ["opt", "llama", "qwen3"])
def test_a_loaded_model_holds_the_seeded_weights(architecture: str, tiny_source: Callable[[str], ModelSource]) -> None:
    source = tiny_source(architecture)
    model = load_model(source, torch.float16, "cpu")
    streamed = dict(seeded_weights(source, torch.float16, "cpu"))
    assert streamed.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(parameter, streamed[name]) for name, parameter in model.named_parameters())
    assert model(torch.tensor([[0, 5, 9]])).logits.isfinite().all()


@pytest.mark.parametrize("ambient", [torch.float16, torch.bfloat16])
def test_seeded_weights_do_not_depend_on_torchs_default_dtype(
    ambient: torch.dtype, tiny_source: Callable[[str], ModelSource], default_dtype: Callable
) -> None:
    """An engine may load its weights under a 16-bit default; the values have to be those that every other executor draws."""
    source = tiny_source("opt")
    expected = dict(seeded_weights(source, ambient, "cpu"))
    with default_dtype(ambient):
        found = dict(seeded_weights(source, ambient, "cpu"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_random_weights_match_a_model_initialised_by_transformers_in_scale(tiny_source: Callable[[str], ModelSource]) -> None:
    model = load_model(tiny_source("opt"), torch.float32, "cpu")
    assert model.model.decoder.layers[0].fc1.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert model.model.decoder.layers[0].fc1.bias.abs().max() == 0
    assert (model.model.decoder.final_layer_norm.weight == 1).all()


def test_a_rotary_model_keeps_its_frequencies(tiny_source: Callable[[str], ModelSource]) -> None:
    model = load_model(tiny_source("llama"), torch.float32, "cpu")
    frequencies = model.model.rotary_emb.inv_freq
    assert torch.allclose(frequencies, 10000.0 ** (-torch.arange(0, 32, 2) / 32))


def test_the_lora_scope_is_the_linear_layers_of_the_blocks(tiny_source: Callable[[str], ModelSource]) -> None:
    names = {
        "opt": {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2"},
        "llama": {f"self_attn.{p}_proj" for p in "qkvo"} | {f"mlp.{p}_proj" for p in ("gate", "up", "down")},
    }
    for architecture, expected in names.items():
        scoped = layout(tiny_source(architecture), "lora")
        assert {name.split(".", 4 if architecture == "opt" else 3)[-1].removesuffix(".weight") for name in scoped} == expected
        assert len(scoped) == 2 * len(expected)
        assert all(len(shape) == 2 for shape in scoped.values())


def test_the_full_scope_counts_tied_weights_once(tiny_source: Callable[[str], ModelSource]) -> None:
    full = layout(tiny_source("opt"), "full")
    assert "model.decoder.embed_tokens.weight" in full and "lm_head.weight" not in full
    assert layout(load_model(tiny_source("opt"), torch.float32, "cpu"), "full") == full
