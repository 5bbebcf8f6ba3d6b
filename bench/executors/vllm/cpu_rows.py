"""Attention on a CPU among the tokens of a pass: rows of about the same length in one call of PyTorch's attention.

Keys and values are read where the projections left them, those of a row's parents too, so a common prefix of any length is run
once. What a row is padded to depends on that row alone, so its bits do not depend on its neighbours. Which tokens stand where is
worked out once a pass, not once a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from bench.api import mark
from bench.executors.vllm.packing import Packed
from workloads.tasks.ragged import Ints

WIDTH = 8
"""Keys, and several queries, are padded to a multiple of so many."""


@dataclass(frozen=True)
class Group:
    """Rows of one shape, which attend in one call.

    queries    [rows, width] places of the queries, filled up with the first
    keys       [rows, span] tokens they see, filled up with the last
    seen       [rows, 1, width, span], or None where it is the lower triangle
    real       which of the queries, flattened, are no padding; None: all
    into       where the real ones stand
    """

    queries: torch.Tensor
    keys: torch.Tensor
    seen: torch.Tensor | None
    real: torch.Tensor | None
    into: torch.Tensor

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, output: torch.Tensor) -> None:
        """query, output [queries, heads, head]; key, value [tokens, KV heads, head]."""
        q, k, v = query[self.queries].transpose(1, 2), key[self.keys].transpose(1, 2), value[self.keys].transpose(1, 2)
        causal, grouped = self.seen is None, key.size(1) != query.size(1)
        o = F.scaled_dot_product_attention(q, k, v, self.seen, is_causal=causal, scale=scale, enable_gqa=grouped)
        found = o.transpose(1, 2).reshape(-1, *output.shape[1:])
        output[self.into] = found if self.real is None else found[self.real]


class TorchRows:
    """groups: of the pass that comes."""

    widest: int | None = None
    goes_on = True

    def __init__(self) -> None:
        self.groups: list[Group] = []

    def sent(self, packed: Packed) -> list[Ints]:
        return []

    def take(self, packed: Packed, sent: list[torch.Tensor]) -> None:
        self.groups = groups_of(packed)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, output: torch.Tensor) -> None:
        """query, output [tokens, heads, head]; key, value [tokens, KV heads, head]."""
        with mark("attention"):
            for group in self.groups:
                group.attend(query, key, value, scale, output)


def groups_of(packed: Packed, wanted: Ints | None = None) -> list[Group]:
    """For every token of a batch; or for the wanted ones alone, whose queries stand in their order."""
    rows, n, places = packed.batch, len(packed.batch.lengths), packed.places().astype(np.int64)
    at = np.arange(len(rows.tokens)) if wanted is None else wanted
    row_of = np.searchsorted(np.cumsum(rows.lengths), at, side="right")
    order, counts = np.argsort(row_of, kind="stable"), np.bincount(row_of, minlength=n)
    begins, positions = np.cumsum(counts) - counts, rows.positions()
    shapes: dict[tuple[int, int, bool], list[int]] = {}
    for row, count in enumerate(counts.tolist()):
        if count:
            width, span = count if count == 1 or wanted is not None else _padded(count), _padded(len(rows.seen[row]))
            shapes.setdefault((width, span, wanted is None and not rows.prior[row]), []).append(row)
    found = []
    for (width, span, whole), some in shapes.items():
        columns, last = np.arange(width), counts[some][:, None] - 1
        queries, inside = order[begins[some][:, None] + np.minimum(columns, last)], columns <= last
        keys = np.empty((len(some), span), dtype=np.int64)
        for line, row in zip(keys, some, strict=True):
            tokens = places[rows.seen[row]]
            line[: len(tokens)], line[len(tokens) :] = tokens, tokens[-1]
        seen = None if whole else torch.from_numpy((np.arange(span) <= positions[at[queries]][..., None])[:, None])
        real = None if inside.all() else torch.from_numpy(np.flatnonzero(inside))
        if wanted is None:
            queries = places[queries]
        into = torch.from_numpy(queries[inside])
        found.append(Group(torch.from_numpy(queries), torch.from_numpy(keys), seen, real, into))
    return found


def _padded(count: int) -> int:
    return -(-count // WIDTH) * WIDTH
