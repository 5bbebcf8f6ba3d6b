"""Rows of different lengths end to end in one sequence, padded nowhere but inside attention: what padding costs, by its absence.

Hugging Face models take the packed tokens with their own positions; attention goes through transformers' AttentionInterface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface

from workloads.tasks.ragged import Rows

NAME = "zo_unpadded"


@dataclass(frozen=True)
class Spread:
    """How packed tokens stand as left-aligned rows. Built on the host; nothing here makes the host wait.

    into     [rows, width] index of the token at each place, those of a row's parents included (of any token where there is none)
    back     [tokens] place of each token in the flattened rows
    """

    into: torch.Tensor
    back: torch.Tensor

    @classmethod
    def of(cls, rows: Rows, device: torch.device) -> Spread:
        lengths = rows.lengths + rows.prior
        width = int(lengths.max())
        starts = np.cumsum(rows.lengths) - rows.lengths
        at = np.arange(width)
        own = (at >= rows.prior[:, None]) & (at < lengths[:, None])
        into = np.where(own, (starts - rows.prior)[:, None] + at, 0)
        for row in np.flatnonzero(rows.prior):  # parents come before their children
            into[row, : rows.prior[row]] = into[rows.parents[row], : rows.prior[row]]
        moved = (torch.from_numpy(a).to(device, non_blocking=True) for a in (into, np.flatnonzero(own)))
        return cls(*moved)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    *,
    spread: Spread,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row, in plain products as `eager` attention is; query, key, value [1, heads, tokens, head]."""
    q, k, v = (x[0].transpose(0, 1)[spread.into].transpose(1, 2) for x in (query, key, value))  # [rows, heads, width, head]
    groups = q.size(1) // k.size(1)
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    width = q.size(2)
    future = torch.ones(width, width, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.transpose(2, 3) * scaling).masked_fill(future, torch.finfo(q.dtype).min)
    out = scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v
    return out.transpose(1, 2).flatten(0, 1)[spread.back][None], None


AttentionInterface.register(NAME, attention)
