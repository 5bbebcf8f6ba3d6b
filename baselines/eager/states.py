"""Probe states as adapters: U-side and V-side buffers of all probes of a forward, and their low-rank products.

Probes of one direction form a group and share its U; probes of one epoch share V too, so the usual pair of probes is one
group: x V once for all rows, times each row's shift, times U^T. The accumulated state stands beside U, scaled up by a power of
two: alone it would sit among float16's subnormals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from itertools import groupby

import torch

from bench.api import Direction, Probe
from workloads.directions import Drawn, offsets

SCALE = 256.0
"""Of the accumulated state: normal in float16 from 2.4e-7 up."""


class AdapterStates:
    """P probes in G groups. Rows of a forward stand probe by probe: probe 0's first, then probe 1's, ...

    u           [G, sum(out), k]: columns U, with SCALE * accumulated state [rank] before them where there is one
    vt          [G, sum(in) * rank], G = 1 when all groups share V; each matrix's part is V^T row-major [rank, in]
    shifts      [P, 1, 1] float32: shift * scale of each probe
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        draw: Mapping[Direction, Drawn],
        accumulated: torch.Tensor | None,
        weights: Mapping[str, torch.Tensor],
        fused: bool,
    ) -> None:
        """draw: of each direction; accumulated: float32 [sum(out), rank] over the V that all probes share, or None."""
        runs = groups(probes)
        drawn = [draw[run[0].direction] for run in runs]
        self.probes, self.groups, self.fused = len(probes), len(runs), fused
        self._weights, self._owners = weights, [draw[probe.direction] for probe in probes]
        self.rank, self._starts = drawn[0].direction.rank, offsets(drawn[0].layout, 1)
        self.accumulates = accumulated is not None
        self.u = torch.stack([_u_side(d, accumulated) for d in drawn])
        shared = len({d.direction.epoch for d in drawn}) == 1
        self.vt = drawn[0].v_flat[None] if shared else torch.stack([d.v_flat for d in drawn])
        amounts = [probe.shift * d.scale for probe, d in zip(probes, self._owners, strict=True)]
        self.shifts = torch.tensor(amounts).to(self.u.device, non_blocking=True)[:, None, None]
        self._values = {
            name: torch.stack([self._moved(name, d.noise(name), p) for p, d in zip(probes, self._owners, strict=True)])
            for name in weights
            if name not in self._starts
        }

    def add(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y plus the low-rank part of a matrix: x [.., in], y [.., out], the tokens of one probe after those of another."""
        right = self._u(name).transpose(1, 2)  # [G, k, out]
        if self.fused:
            h = self.shrink(name, x)
            return torch.baddbmm(y.reshape(self.groups, -1, y.size(-1)), h.view(self.groups, -1, h.size(-1)), right).view_as(y)
        per_group = self.probes // self.groups
        parts = []
        xs, ys = (t.reshape(self.probes, -1, t.size(-1)) for t in (x, y))
        for p, (x_p, y_p) in enumerate(zip(xs, ys, strict=True)):
            h = self._scale(x_p @ self._vt(name, p // per_group).t(), self.shifts[p, 0])
            parts.append(y_p + h @ right[p // per_group])
        return torch.stack(parts).view_as(y)

    def shrink(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """x V times the probes' shifts: [P, rows of a probe, k]."""
        if len(self.vt) == 1:
            h = x.reshape(-1, x.size(-1)) @ self._vt(name, 0).t()
        else:
            h = torch.bmm(x.reshape(self.groups, -1, x.size(-1)), self._vts(name).transpose(1, 2))
        return self._scale(h.view(self.probes, -1, self.rank), self.shifts)

    def head_rows(self, name: str, tokens: torch.Tensor) -> torch.Tensor:
        """U-side rows of some vocabulary entries for each probe: tokens [..] to [P, .., k]."""
        return self._u(name)[:, tokens].repeat_interleave(self.probes // self.groups, 0)

    def only(self, probe: int) -> AdapterStates:
        """One probe's share, for rows of that probe alone."""
        group, one = probe // (self.probes // self.groups), copy(self)
        one.probes = one.groups = 1
        one.u, one.shifts = self.u[group : group + 1], self.shifts[probe : probe + 1]
        one.vt = self.vt if len(self.vt) == 1 else self.vt[group : group + 1]
        one._values = {name: values[probe : probe + 1] for name, values in self._values.items()}
        return one

    def factored(self, name: str) -> bool:
        return name in self._starts

    def values(self, name: str) -> torch.Tensor:
        """A tensor without factors under every probe [P, *shape]."""
        return self._values[name]

    def value(self, name: str, probe: int) -> torch.Tensor:
        """Any tensor under one probe; a matrix is multiplied out, one at a time."""
        if not self.factored(name):
            return self._values[name][probe]
        group = probe // (self.probes // self.groups)
        u, weight = self._u(name)[group].float(), self._weights[name]
        v = self._scale(self._vt(name, group).float().t(), self.shifts[probe, 0])  # [in, k]
        return (weight.float() + u @ v.t()).to(weight.dtype)

    def nbytes(self) -> int:
        """Bytes of everything written for the probes, V included."""
        return sum(t.numel() * t.element_size() for t in (self.u, self.vt, *self._values.values()))

    def _scale(self, h: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """[.., rank] to [.., k]; in float32, for the shift of a high-rank direction is subnormal in float16."""
        shifted = (h * shift).to(h.dtype)
        return torch.cat([h / SCALE, shifted], dim=-1) if self.accumulates else shifted

    def _moved(self, name: str, z: torch.Tensor, probe: Probe) -> torch.Tensor:
        return (self._weights[name].float() + probe.shift * z.float()).to(z.dtype)

    def _u(self, name: str) -> torch.Tensor:
        start = self._starts[name][0]
        return self.u[:, start : start + self._weights[name].size(0)]

    def _vts(self, name: str) -> torch.Tensor:
        start, width = self._starts[name][1], self._weights[name].size(1)
        return self.vt[:, start * self.rank : (start + width) * self.rank].view(-1, self.rank, width)

    def _vt(self, name: str, group: int) -> torch.Tensor:
        vts = self._vts(name)
        return vts[group if len(vts) > 1 else 0]


def groups(probes: Sequence[Probe]) -> list[list[Probe]]:
    """Probes that share a U: those of one direction, where each direction has as many; else each by itself."""
    runs = [list(run) for _, run in groupby(probes, key=lambda probe: probe.direction)]
    return runs if len({len(run) for run in runs}) == 1 else [[probe] for probe in probes]


def _u_side(drawn: Drawn, accumulated: torch.Tensor | None) -> torch.Tensor:
    u = drawn.u_flat.view(-1, drawn.direction.rank)
    return u if accumulated is None else torch.cat([(accumulated * SCALE).to(u.dtype), u], dim=1)
