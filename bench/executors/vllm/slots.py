"""Resident adapter slots: one parameter state each, overwritten in place on the device by a few batched copies.

A LoZO slot holds [V/s | V] x [s*acc | shift*U]: the accumulated state beside the probe, since the first is small against
the second and alone would sit among float16's subnormals; s is a power of two. A factorized slot holds the probe only.
"""

from __future__ import annotations

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
        self._held: list[tuple[int, object] | None] = [None] * count
        for a, b in slices.values():
            a.zero_()
            b.zero_()

    def write(self, slot: int, drawn: Drawn, shift: float, accumulated: torch.Tensor | None) -> None:
        """Put theta + shift * Z into a slot. accumulated: float32 [sum(out), rank] over the same V, or None for none yet."""
        stage, end = self.staged, self.base + self.rank
        torch.mul(drawn.u_flat.view(-1, self.rank), shift * drawn.scale, out=stage[:, self.base : end])
        if self.base:
            stage[:, : self.base] = 0.0 if accumulated is None else accumulated * SCALE
        torch._foreach_copy_(self._b[slot], self._sources)
        self._write_v(slot, drawn)

    def _write_v(self, slot: int, drawn: Drawn) -> None:
        key = (drawn.direction.seed, _v_key(drawn.direction))
        if self._held[slot] == key:
            return
        vt = [drawn.vt(name) for name in self.layout]
        torch._foreach_copy_([a[self.base : self.base + self.rank] for a in self._a[slot]], vt)
        if self.base:
            torch._foreach_copy_([a[: self.base] for a in self._a[slot]], torch._foreach_div(vt, SCALE))
        self._held[slot] = key

    def bytes_per_probe(self) -> int:
        """Bytes one probe's write puts into its slot when V is kept."""
        return self.staged.numel() * self.staged.element_size()

    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for tensors in (*self._a, *self._b) for t in tensors)


def _v_key(direction: Direction) -> object:
    return direction.kind, direction.rank, direction.epoch
