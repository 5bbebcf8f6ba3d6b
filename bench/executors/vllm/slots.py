"""Resident adapter slots: one parameter state each, overwritten in place on the device by a few batched copies.

A LoZO slot holds [V/s | V/t] x [s*acc | t*shift*U]: the accumulated state beside the probe. A factorized slot holds the probe
only, V/t x t*shift*U/sqrt(rank). The powers of two s and t keep what is small (acc; shift at a small eps or a high rank) out of
float16's subnormals.
"""

from __future__ import annotations

import math

import torch

from bench.api import Direction
from workloads.directions import Drawn, Layout

SCALE = 256.0
"""Scaled accumulator: exact in the exponent, normal in float16 from 2.4e-7 up, in range up to 256."""


class AdapterSlots:
    """slices: name -> (A [slots, 1, max_rank, in], B [slots, 1, out, max_rank]), in layout order; rank of the directions."""

    def __init__(
        self, slices: dict[str, tuple[torch.Tensor, torch.Tensor]], layout: Layout, rank: int, accumulates: bool
    ) -> None:
        self.rank, self.layout = rank, layout
        self.base = rank if accumulates else 0  # first column of the probe; the accumulated state stands before it
        first_a, first_b = next(iter(slices.values()))
        count, width, dtype, device = first_a.size(0), first_b.size(3), first_a.dtype, first_a.device
        if width < self.base + rank:
            raise ValueError(f"adapter slots of rank {width} cannot hold {self.base + rank}")
        rows = [shape[0] for shape in layout.values()]
        self.staged = torch.zeros(sum(rows), width, dtype=dtype, device=device)
        self._sources = list(self.staged.split(rows))
        self._b = [[b[slot, 0] for _, b in slices.values()] for slot in range(count)]
        self._a = [[a[slot, 0] for a, _ in slices.values()] for slot in range(count)]
        self._held: list[object] = [None] * count

    def write(self, slot: int, drawn: Drawn, shift: float, accumulated: torch.Tensor | None) -> None:
        """Put theta + shift * Z into a slot. accumulated: float32 [sum(out), rank] over the same V, or None for none yet."""
        stage, end, amount = self.staged, self.base + self.rank, shift * drawn.scale
        split = halfway(amount)
        torch.mul(drawn.u_flat.view(-1, self.rank), amount * split, out=stage[:, self.base : end])
        if self.base:
            stage[:, : self.base] = 0.0 if accumulated is None else accumulated * SCALE
        torch._foreach_copy_(self._b[slot], self._sources)
        self._write_v(slot, drawn, split)

    def _write_v(self, slot: int, drawn: Drawn, split: float) -> None:
        key = (drawn.direction.seed, _v_key(drawn.direction), split)
        if self._held[slot] == key:
            return
        vt = [drawn.vt(name) for name in self.layout]
        torch._foreach_copy_([a[self.base : self.base + self.rank] for a in self._a[slot]], torch._foreach_div(vt, split))
        if self.base:
            torch._foreach_copy_([a[: self.base] for a in self._a[slot]], torch._foreach_div(vt, SCALE))
        self._held[slot] = key

    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for tensors in (*self._a, *self._b) for t in tensors)


def halfway(amount: float) -> float:
    """A power of two near 1 / sqrt(|amount|): times one factor and off the other, it leaves both with about the same share."""
    return 1.0 if amount == 0 else 2.0 ** (-math.frexp(amount)[1] // 2)


def _v_key(direction: Direction) -> object:
    return direction.kind, direction.rank, direction.epoch
