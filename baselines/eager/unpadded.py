"""Rows of different lengths end to end in one sequence, padded nowhere but inside attention: what padding costs, by its absence.

Hugging Face models take the packed tokens with their own positions. Inside attention the tokens are spread as left-aligned rows,
and the family's own eager attention runs on them, under its own mask of such rows: windows, soft caps and sinks are its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from workloads.tasks.ragged import Rows

NAME = "zo_unpadded"
OWN = "eager_attention_forward"
"""What transformers calls a family's own attention in plain products, in the family's module."""


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


_spread: ContextVar[Spread] = ContextVar("spread")


@contextmanager
def spread_as(spread: Spread) -> Iterator[None]:
    """While the model runs, its packed tokens are these rows."""
    token = _spread.set(spread)
    try:
        yield
    finally:
        _spread.reset(token)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each row: query, key, value [1, heads, tokens, head] -> [1, tokens, heads, head]."""
    spread = _spread.get()
    rows = (x[0].transpose(0, 1)[spread.into].transpose(1, 2) for x in (query, key, value))  # [rows, heads, width, head]
    own = getattr(sys.modules[type(module).__module__], OWN)
    out, _ = own(module, *rows, attention_mask, *args, **kwargs)
    return out.flatten(0, 1)[spread.back][None], None


def mask(*, mask_function: Callable[..., torch.Tensor], dtype: torch.dtype, device: torch.device, **_: Any) -> torch.Tensor:
    """What a place of a row may look at, as the family has it: [1, 1, width, width], 0 where it may, else the least number."""
    at = torch.arange(_spread.get().into.size(1), device=device)
    first = at[:1].view(1, 1, 1, 1)
    seen = mask_function(first, first, at.view(1, 1, -1, 1), at.view(1, 1, 1, -1)).expand(1, 1, len(at), len(at))
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)


def takes_packed_rows(model: nn.Module) -> bool:
    """Whether a family's attention goes through transformers' interface, so that another can be put in its place."""
    return any(hasattr(sys.modules[type(module).__module__], OWN) for module in model.modules())


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)
