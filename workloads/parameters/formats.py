"""Numbers in fewer bits: FP8 with a scale for a tensor or a row, and the 4-bit NormalFloat in blocks.

Sources: FP8 e4m3 (arXiv 2209.05433), with the scales of vLLM's `quantization="fp8"`; NF4 (arXiv 2305.14314, section 3 and
appendix E), in the blocks of 64 that bitsandbytes has.
"""

from __future__ import annotations

from functools import cache

import torch

FP8 = torch.float8_e4m3fn
FP8_MOST = torch.finfo(FP8).max
SMALLEST_SCALE = 1.0 / (FP8_MOST * 512.0)
"""vLLM's bound, for rows of zeros."""
BLOCK = 64
TAIL = (1 - 1 / 32 + 1 - 1 / 30) / 2
"""The outermost quantile: halfway between the ends of 16 and of 15 bins over one half of the normal distribution."""


def fp8_scale(*weights: torch.Tensor) -> torch.Tensor:
    """What all these tensors together are divided by: 0-d float32."""
    return torch.stack([weight.abs().max() for weight in weights]).max().float() / FP8_MOST


def to_fp8(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Divided by a scale that broadcasts, rounded to nearest; what is beyond the format saturates."""
    return (values.float() * scale.reciprocal()).clamp_(-FP8_MOST, FP8_MOST).to(FP8)


def fp8_rounded(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The FP8 numbers times their scale, in the type that the values have."""
    return (to_fp8(values, scale).float() * scale).to(values.dtype)


def fp8_rows(x: torch.Tensor) -> torch.Tensor:
    """Activations [.., width] rounded to FP8, each row by a scale of its own: what a row becomes depends on that row alone."""
    return fp8_rounded(x, (x.abs().amax(-1, keepdim=True).float() / FP8_MOST).clamp(min=SMALLEST_SCALE))


@cache
def nf4_levels() -> torch.Tensor:
    """The 16 levels from -1 to 1, float32: quantiles of the normal distribution, 8 of them above 0, 7 below, and 0 itself."""
    above = torch.special.ndtri(torch.linspace(TAIL, 0.5, 9, dtype=torch.float64))[:-1]
    below = -torch.special.ndtri(torch.linspace(TAIL, 0.5, 8, dtype=torch.float64))[:-1]
    levels = torch.cat([below, torch.zeros(1, dtype=torch.float64), above]).sort().values
    return (levels / levels.max()).float()


def nf4_rounded(weight: torch.Tensor) -> torch.Tensor:
    """A matrix [out, in] of the nearest levels, times the largest magnitude of each block of 64 along its rows."""
    flat = weight.float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)
    most = blocks.abs().amax(-1, keepdim=True)
    levels = nf4_levels().to(weight.device)
    nearest = torch.bucketize(blocks / most.clamp(min=torch.finfo(torch.float32).tiny), (levels[1:] + levels[:-1]) / 2)
    return (levels[nearest] * most).flatten()[: flat.numel()].view(weight.shape).to(weight.dtype)
