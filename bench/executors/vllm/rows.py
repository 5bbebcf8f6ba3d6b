"""Products on a CPU whose rows do not depend on how many rows and columns there are.

MKL multiplies one to three rows, and up to eight columns, by other routines than many, with other last bits; from there on the
bits of a row are the same in every batch (one thread; measured on x86-64). So products have four rows and 16 columns at least.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

FEW, NARROW = 4, 16
Linear = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def at_least(rows: int, x: torch.Tensor) -> torch.Tensor:
    """x [n, width] itself, or a copy with rows of zeros after it where n is smaller than `rows`."""
    return x if x.size(0) >= rows else F.pad(x, (0, 0, 0, rows - x.size(0)))


def make_rows_alike(model: torch.nn.Module) -> int:
    """Let vLLM's linear layers on a CPU, head included, pad batches of few rows. Returns how many layers there are."""
    found = [module for module in model.modules() if hasattr(module, "cpu_linear")]
    for module in found:
        module.cpu_linear = _padded(module.cpu_linear)  # type: ignore[assignment,arg-type]  # vLLM's own attribute
    return len(found)


def _padded(linear: Linear) -> Any:
    def apply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if x.dim() != 2 or x.size(0) >= FEW:
            return linear(x, weight, bias)
        return linear(at_least(FEW, x), weight, bias)[: x.size(0)]

    return apply
