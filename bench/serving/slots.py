"""Adapter slots whose columns hold what training has learned, the probe, and the past after them.

[V/s | V/t | A/s] x [s acc | t shift U | s B]: the first two as the vllm executor writes them, so that the same bits come out.
"""

from __future__ import annotations

import torch

from bench.executors.vllm.slots import SCALE, AdapterSlots
from workloads.directions import Drawn, Layout
from workloads.parameters.stacked import Factors


class StackedSlots(AdapterSlots):
    def __init__(
        self, slices: dict[str, tuple[torch.Tensor, torch.Tensor]], layout: Layout, rank: int, accumulates: bool
    ) -> None:
        super().__init__(slices, layout, rank, accumulates)
        self.after = self.base + rank
        self.room = self.staged.size(1) - self.after
        self._past: Factors = {}
        self._key: object = None
        self._has: list[object] = [None] * len(self._a)

    def set_past(self, key: object, past: Factors) -> None:
        """What every slot that is written from now on holds after its probe. key: says when two pasts are the same."""
        self._past, self._key = past, key
        self.staged[:, self.after :] = 0.0
        if past:
            b = torch.cat([past[name][0] for name in self.layout])
            self.staged[:, self.after : self.after + b.size(1)] = b * SCALE

    @property
    def key(self) -> object:
        return self._key

    def write(self, slot: int, drawn: Drawn, shift: float, accumulated: torch.Tensor | None) -> None:
        if self._has[slot] != self._key:
            for a, name in zip(self._a[slot], self.layout, strict=True):
                a[self.after :] = 0.0
                if self._past:
                    rows = self._past[name][1]
                    a[self.after : self.after + rows.size(0)] = rows / SCALE
            self._has[slot] = self._key
        super().write(slot, drawn, shift, accumulated)

    def clear(self, slot: int) -> None:
        """The base model's own weights."""
        for tensor in (*self._a[slot], *self._b[slot]):
            tensor.zero_()
        self._has[slot] = self._held[slot] = None
