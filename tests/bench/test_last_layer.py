"""The last layer for the wanted positions alone: what they see, and which models have such a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.data import Example
from bench.executors.vllm.last_layer import LastLayer, groups_of, last_of
from bench.executors.vllm.packing import pack
from workloads.tasks.ragged import full_rows, tree_rows

BATCHES = [
    (Example((1, 2, 3), ((4,), (5,)), 0), Example(tuple(range(1, 15)), ((4,), (5,)), 1)),
    (Example((1, 2, 3), ((4, 5, 6), (7, 8)), 0), Example((9,), ((4,), (5, 6, 7)), 1), Example((9, 8), ((3,),), 0)),
]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("rows_of", [full_rows, lambda batch, probes: tree_rows(batch, probes, 64)])
def test_every_wanted_position_sees_its_row_up_to_itself(batch: Any, rows_of: Callable) -> None:
    rows = rows_of(batch, 2)
    packed = pack(rows, len(rows.lengths) + 1, len(rows.tokens) + 3, 16)
    seen: dict[int, list[int]] = {}
    for at, place, sees in groups_of(packed, rows.wanted):
        for index, tokens, rowwise in zip(at, place, sees[:, 0], strict=True):
            for number, mask in zip(index.tolist(), rowwise, strict=True):
                seen[number] = tokens[mask].tolist()
    first = np.repeat(np.cumsum(rows.lengths) - rows.lengths, rows.lengths)
    assert seen == {n: list(range(first[token], token + 1)) for n, token in enumerate(rows.wanted.tolist())}


class Layer(nn.Module):
    def __init__(self, attentions: int) -> None:
        super().__init__()
        made = [nn.Identity() for _ in range(attentions)]
        for one in made:
            one.impl = one.kv_cache = None  # what vLLM's attention has
        self.attn = nn.ModuleList(made) if attentions > 1 else made[0]


@pytest.mark.parametrize(("attentions", "found"), [((1, 1, 1), True), ((1, 1, 2), False), ((1, 2, 1), False)])
def test_only_a_stack_of_layers_with_one_attention_each_has_a_last_one(attentions: tuple[int, ...], found: bool) -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([Layer(count) for count in attentions])})
    layer, _ = last_of(model)
    assert layer is (model["layers"][-1] if found else None)


def test_a_pass_that_fails_inside_the_layer_leaves_nothing_behind() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.Identity()
            self.attn.impl, self.attn.kv_cache = type("Impl", (), {"scale": 1.0})(), None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(x)
            self.attn.impl.forward(None, x, x, x, None, None, out)
            if len(x) == 1:
                raise RuntimeError("broken")
            return out

    model = nn.ModuleDict({"layers": nn.ModuleList([Broken()])})
    last, x = LastLayer(model), torch.randn(4, 1, 8)
    rows = full_rows((Example((1, 2), ((3, 4),), 0),), 1)
    assert last.taken
    for _ in range(2):
        last.take(pack(rows, 1, 4, 16), rows.wanted[-1:], [-1], None)
        with last.during(True), pytest.raises(RuntimeError, match="broken"):
            model["layers"][0](x)
