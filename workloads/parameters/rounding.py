"""Adding a small update to 16-bit weights without losing it: seeded stochastic rounding.

Rounding to nearest loses most of a ZO update in float16 (half an ulp of a typical weight is larger than the update).
Choosing between the two neighbours with the right odds is unbiased, needs no extra memory and replays from its seed.
"""

from __future__ import annotations

import torch

from workloads.parameters.shards import Shard
from workloads.seeds import derive_seed


def stochastic_round(
    values: torch.Tensor, dtype: torch.dtype, generator: torch.Generator, shard: Shard | None = None
) -> torch.Tensor:
    """Round float32 `values` to a 16-bit dtype so that the expectation is the value itself. shard: the part of a tensor that the
    values are; random numbers are drawn for all of it."""
    nearest = values.to(dtype)
    error = values - nearest.float()
    bits = nearest.view(torch.int16)
    upward = error > 0
    grows = upward == (bits >= 0)  # sign bit clear means non-negative: moving up makes the magnitude grow
    neighbour_bits = torch.where(grows, bits + 1, bits - 1)
    smallest = torch.where(upward, torch.ones_like(bits), torch.full_like(bits, -32767))  # +- the smallest subnormal
    neighbour = torch.where(nearest == 0, smallest, neighbour_bits).view(dtype)
    gap = (neighbour.float() - nearest.float()).abs()
    shape = list(values.shape)
    if shard is not None:
        shape[shard.axis] = shard.full
    draws = torch.rand(shape, generator=generator, device=values.device, dtype=torch.float32)
    draws = draws if shard is None else shard.cut(draws)
    return torch.where((draws * gap < error.abs()) & (error != 0), neighbour, nearest)


def add_(weight: torch.Tensor, delta: torch.Tensor, *seed: object, shard: Shard | None = None) -> None:
    """weight += delta in place: exact float32 addition, or stochastic rounding seeded by `seed` for 16-bit weights.

    weight [..]; delta [..] float32; shard: the part of a tensor that both are. One float32 copy of the
    tensor is the largest temporary kind.
    """
    if weight.dtype == torch.float32:
        weight.add_(delta)
        return
    generator = torch.Generator(device=weight.device).manual_seed(derive_seed("round", *seed))
    weight.copy_(stochastic_round(weight.float() + delta, weight.dtype, generator, shard))
