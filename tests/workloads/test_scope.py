"""What a scope moves and what it leaves, for every family; nothing to move is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from families import EXPERT_FAMILIES, FAMILIES
from torch import nn
from transformers.pytorch_utils import Conv1D

from bench.data import ModelSource
from bench.errors import UsageError
from workloads.models.scope import Trained, layout, views
from workloads.models.weights import load_model

Make = Callable[..., ModelSource]


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_out_by_in_whichever_way_a_matrix_is_stored(family: str, tiny_source: Make) -> None:
    """A view multiplies as its module does: x W^T is what the module gives, its bias left out."""
    source = tiny_source(family)
    model = load_model(source, torch.float32, "cpu")
    found = views(model, "lora")
    assert {name: tuple(view.shape) for name, view in found.items()} == layout(source, "lora")
    for name, view in found.items():
        module = model.get_submodule(name.removesuffix(".weight"))
        bias = torch.zeros(view.size(0)) if module.bias is None else module.bias
        x = torch.randn(3, view.size(1))
        assert torch.allclose(module(x) - bias, x @ view.T, atol=1e-5), name
        assert view.is_contiguous() and view.data_ptr() == module.weight.data_ptr()


def test_a_moved_view_moves_the_model(tiny_source: Make) -> None:
    model = load_model(tiny_source("gpt2"), torch.float32, "cpu")
    module = model.transformer.h[1].mlp.c_fc
    assert isinstance(module, Conv1D) and module.weight.shape == (64, 256)
    views(model, "lora")["transformer.h.1.mlp.c_fc.weight"][7, 3] += 5.0
    assert module.weight[3, 7] > 4.0


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_are_the_only_matrices_of_the_blocks_that_stay(family: str, tiny_source: Make) -> None:
    source = tiny_source(family)
    trained = Trained.of_model(source, "lora")
    assert trained.parameters < trained.of == sum(p.numel() for p in load_model(source, torch.float32, "cpu").parameters())
    assert bool(trained.warnings()) == (family in EXPERT_FAMILIES)
    assert not Trained.of_model(source, "full").warnings()


def test_a_mixture_of_experts_says_what_stays(tiny_source: Make) -> None:
    trained = Trained.of_model(tiny_source("qwen3_moe"), "lora")
    assert trained.layers == {"q_proj": 2, "k_proj": 2, "v_proj": 2, "o_proj": 2}
    assert trained.stays == {"gate": 2, "gate_up_proj": 2, "down_proj": 2}
    (warning,) = trained.warnings()
    assert "24,576 of 115,648 parameters: gate_up_proj, down_proj, gate (6 tensors inside the blocks) stay as they are" in warning


class OwnLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))


def test_an_empty_scope_is_refused() -> None:
    model = nn.Module()
    with pytest.raises(UsageError, match="no repeated blocks"):
        layout(model, "lora")
    model.layers = nn.ModuleList([OwnLinear(), OwnLinear()])
    with pytest.raises(UsageError, match="no linear layers in its blocks, so nothing would be trained; use --scope full"):
        layout(model, "lora")
    assert len(layout(model, "full")) == 2


def test_blocks_are_found_beside_longer_lists_inside_them() -> None:
    """Sixty-four experts to a block are no blocks."""

    def block() -> nn.Module:
        found = nn.Module()
        found.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(64))
        return found

    model = nn.Module()
    model.layers = nn.ModuleList([block(), block()])
    assert len(layout(model, "lora")) == 128
