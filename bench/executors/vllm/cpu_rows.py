"""Attention over whole rows on a CPU: rows of about the same length in one call of PyTorch's attention.

What a row is padded to depends on that row alone, so its bits do not depend on its neighbours. Which tokens stand where is
worked out once a pass, not once a layer.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from bench.api import mark
from bench.executors.vllm.packing import Packed
from workloads.tasks.ragged import Ints

WIDTH = 8
"""Rows are padded to a multiple of so many tokens."""


class TorchRows:
    """groups: of the pass that comes, (place of each padded token [rows, width], which of them are real, where those stand)."""

    widest: int | None = None

    def __init__(self) -> None:
        self.groups: list[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]] = []

    def sent(self, packed: Packed) -> list[Ints]:
        return []

    def take(self, packed: Packed, sent: list[torch.Tensor]) -> None:
        first, lengths = packed.starts[:-1], np.diff(packed.starts)
        widths = -(-lengths // WIDTH) * WIDTH
        self.groups = []
        for width in np.unique(widths[lengths > 0]):
            rows = widths == width
            at, inside = first[rows][:, None] + np.arange(width), np.arange(width) < lengths[rows][:, None]
            place = torch.from_numpy(np.where(inside, at, first[rows][:, None]).astype(np.int64))
            real = None if inside.all() else torch.from_numpy(np.flatnonzero(inside))
            self.groups.append((place, real, torch.from_numpy(at[inside].astype(np.int64))))

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, output: torch.Tensor) -> None:
        """query, output [tokens, heads, head]; key, value [tokens, KV heads, head]. Padding is behind what is seen."""
        grouped = key.size(1) != query.size(1)
        with mark("attention"):
            for place, real, tokens in self.groups:
                q, k, v = (x[place].transpose(1, 2) for x in (query, key, value))
                o = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
                found = o.transpose(1, 2).reshape(-1, *output.shape[1:])
                output[tokens] = found if real is None else found[real]
