"""The last layer for the wanted positions alone: what they see, and which models have such a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.data import Example
from bench.executors.vllm.cpu_rows import groups_of
from bench.executors.vllm.last_layer import LastLayer, last_of
from bench.executors.vllm.packing import pack
from workloads.tasks.ragged import full_rows, tree_rows

BATCHES = [
    (Example((1, 2, 3), ((4,), (5,)), 0), Example(tuple(range(1, 15)), ((4,), (5,)), 1)),
    (Example((1, 2, 3), ((4, 5, 6), (7, 8)), 0), Example((9,), ((4,), (5, 6, 7)), 1), Example((9, 8), ((3,),), 0)),
]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("rows_of", [full_rows, tree_rows])
@pytest.mark.parametrize("every", [False, True])
def test_every_query_sees_its_row_up_to_itself(batch: Any, rows_of: Callable, every: bool) -> None:
    """By the tokens: what a query sees are the ids of a row from its beginning to the query's own."""
    rows = rows_of(batch, 2)
    packed = pack(rows, len(rows.lengths) + 1, len(rows.tokens) + 3, 16)
    wanted = np.arange(len(rows.tokens)) if every else rows.wanted
    found: dict[int, tuple[int, ...]] = {}
    for group in groups_of(packed, None if every else wanted):
        span, queries = group.keys.size(1), group.queries.numpy()
        sees = np.tril(np.ones((1, 1, queries.shape[1], span), bool)) if group.seen is None else group.seen.numpy()
        sees = np.broadcast_to(sees, (len(queries), 1, *sees.shape[2:]))[:, 0]
        for index, keys, rowwise in zip(queries, group.keys.numpy(), sees, strict=True):
            for number, mask in zip(index.tolist(), rowwise, strict=True):
                if number not in found:  # what fills a row up repeats its first or last query
                    found[number] = tuple(rows.tokens[keys[mask]].tolist())
        assert set(group.into.tolist()) <= set(queries.ravel().tolist())
    whole = {row[:end] for example in batch for row, _ in example.rows() for end in range(1, len(row) + 1)}
    assert sorted(found) == list(range(len(wanted)))
    positions = rows.positions()
    for number, tokens in found.items():
        assert tokens in whole
        assert (tokens[-1], len(tokens)) == (rows.tokens[wanted[number]], positions[wanted[number]] + 1)


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
