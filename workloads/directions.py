"""The random directions, defined once: every executor on a device draws bit-identical values from here.

Low-rank factors take one float32 generator call per kind (U, V) into a flat buffer that is then cast; executors use
named slices of it. Dense noise takes one seeded call per tensor, in the Hugging Face shape of the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from bench.api import Direction, Kind
from workloads.seeds import gaussian

Layout = Mapping[str, tuple[int, ...]]
"""Canonical Hugging Face parameter name -> shape, in the model's order; q, k and v apart."""


@dataclass(frozen=True)
class Drawn:
    """The numbers of one direction over a layout.

    u_flat     [sum(out) * rank] in `dtype`: U of every matrix, one after the other in layout order, each row-major [out, rank]
    v_flat     [sum(in) * rank] likewise, but each matrix holds V^T, row-major [rank, in], as an adapter's A does
    scale      Z = scale * U V^T for matrices; other tensors (and every tensor of a dense direction) are Gaussian
    whole, cut where the layout is of parts of tensors: the shapes of the whole ones, and the part of one by its name
    """

    direction: Direction
    layout: Layout
    device: torch.device
    dtype: torch.dtype
    u_flat: torch.Tensor
    v_flat: torch.Tensor
    scale: float
    _offsets: dict[str, tuple[int, int]] = field(repr=False)
    whole: Layout | None = None
    cut: Callable[[str, torch.Tensor], torch.Tensor] | None = None

    def factored(self, name: str) -> bool:
        """Whether this tensor's Z is U V^T (else it is `noise`)."""
        return name in self._offsets

    def u(self, name: str) -> torch.Tensor:
        """U [out, rank], a view."""
        return self.slice_u(self.u_flat, name)

    def slice_u(self, flat: torch.Tensor, name: str) -> torch.Tensor:
        """The part of any U-side buffer, laid out as `u_flat` is, that belongs to a matrix: [out, rank], a view."""
        return self._slice(flat, name, 0).view(-1, self.direction.rank)

    def v(self, name: str) -> torch.Tensor:
        """V [in, rank], a view."""
        return self.vt(name).t()

    def vt(self, name: str) -> torch.Tensor:
        """V^T [rank, in], a contiguous view."""
        return self._slice(self.v_flat, name, 1).view(self.direction.rank, -1)

    def noise(self, name: str) -> torch.Tensor:
        """Gaussian Z of a tensor without factors, in its own shape; drawn afresh at every call."""
        d = self.direction
        z = gaussian((self.whole or self.layout)[name], self.device, "noise", d.seed, d.step, d.query, name)
        return (z if self.cut is None else self.cut(name, z)).to(self.dtype)

    def delta(self, name: str) -> torch.Tensor:
        """Z itself in float32, in the parameter's shape."""
        if self.factored(name):
            return (self.u(name).float() @ self.v(name).float().t()) * self.scale
        return self.noise(name).float()

    def _slice(self, flat: torch.Tensor, name: str, axis: int) -> torch.Tensor:
        start, size = self._offsets[name][axis], self.layout[name][axis]
        return flat[start : start + size * self.direction.rank]


def offsets(layout: Layout, rank: int) -> dict[str, tuple[int, int]]:
    """Where each matrix starts in the flat U and V buffers."""
    found, at_u, at_v = {}, 0, 0
    for name, shape in layout.items():
        if len(shape) == 2:
            found[name] = (at_u, at_v)
            at_u, at_v = at_u + shape[0] * rank, at_v + shape[1] * rank
    return found


def directions(
    seed: int,
    step: int,
    layout: Layout,
    device: torch.device | str,
    *,
    kind: Kind = "lowrank",
    rank: int = 2,
    interval: int = 50,
    query: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Drawn:
    """Draw the direction of one query of one step (see `Direction` for the kinds)."""
    return draw(Direction(kind, seed, step, query, 0 if kind == "dense" else rank, interval), layout, device, dtype)


def draw(
    direction: Direction,
    layout: Layout,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    *,
    v_only: bool = False,
) -> Drawn:
    """The numbers a reference stands for. v_only: u_flat stays empty, for callers with a U side of their own."""
    device = torch.device(device)
    if direction.kind == "dense":
        empty = torch.empty(0, device=device, dtype=dtype)
        return Drawn(direction, layout, device, dtype, empty, empty, 1.0, {})
    d, shapes = direction, [shape for shape in layout.values() if len(shape) == 2]
    size = sum(s[0] for s in shapes) * d.rank
    u = torch.empty(0, device=device) if v_only else gaussian((size,), device, "u", d.seed, d.step, d.query)
    v = gaussian((sum(s[1] for s in shapes) * d.rank,), device, "v", d.seed, *d.epoch)
    scale = 1 / math.sqrt(d.rank) if d.kind == "factorized" else 1.0
    return Drawn(d, layout, device, dtype, u.to(dtype), v.to(dtype), scale, offsets(layout, d.rank))
