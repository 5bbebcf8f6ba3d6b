"""The part of every tensor that one process of several holds, and the part of everything random that belongs to it.

Random numbers are drawn for whole tensors and cut, so what is drawn does not depend on how many processes share a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from bench.api import Direction, Snapshot
from workloads.directions import Drawn, Layout, draw, offsets


@dataclass(frozen=True)
class Shard:
    """Entries `start` to `start + size` of `full` along an axis."""

    axis: int
    start: int
    size: int
    full: int

    @property
    def whole(self) -> bool:
        return self.size == self.full

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part of a whole tensor, a view."""
        return tensor if self.whole else tensor.narrow(self.axis, self.start, self.size)

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same of what has a row for each output: U [out, rank]."""
        return self.cut(tensor) if self.axis == 0 else tensor

    def columns(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same of what has a column for each input: V^T [rank, in]."""
        return tensor if self.axis == 0 or self.whole else tensor.narrow(1, self.start, self.size)


class Shards:
    """whole: the layout of the model; parts: what of each tensor is here. layout: the shapes of the parts."""

    def __init__(self, whole: Layout, parts: Mapping[str, Shard]) -> None:
        self.whole, self.parts = whole, {name: parts[name] for name in whole}
        self.layout: Layout = {
            name: tuple(parts[name].size if axis == parts[name].axis else size for axis, size in enumerate(shape))
            for name, shape in whole.items()
        }

    def cut(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return self.parts[name].cut(tensor)

    def draw(self, direction: Direction, device: torch.device, dtype: torch.dtype, *, v_only: bool = False) -> Drawn:
        """The parts of a direction that belong here: rows of U where rows are shared out, columns of V^T where columns are."""
        drawn = replace(draw(direction, self.whole, device, dtype, v_only=v_only), whole=self.whole, cut=self.cut)
        if not direction.factored:
            return replace(drawn, layout=self.layout)
        names = [name for name in self.whole if drawn.factored(name)]
        u = [self.parts[name].rows(drawn.u(name)).reshape(-1) for name in names if not v_only]
        vt = [self.parts[name].columns(drawn.vt(name)).reshape(-1) for name in names]
        flat = drawn.u_flat if v_only else torch.cat(u)
        local = offsets(self.layout, direction.rank)
        return replace(drawn, layout=self.layout, u_flat=flat, v_flat=torch.cat(vt), _offsets=local)

    def cut_factor(self, flat: torch.Tensor) -> torch.Tensor:
        """The U side [sum(out) * rank] of the whole layout -> that of the parts."""
        names = [name for name, shape in self.whole.items() if len(shape) == 2]
        rank = flat.numel() // sum(self.whole[name][0] for name in names)
        sides = flat.view(-1, rank).split([self.whole[name][0] for name in names])
        return torch.cat([self.parts[name].rows(side) for name, side in zip(names, sides, strict=True)]).flatten()


def part_of(shards: Shards | None, name: str) -> Shard | None:
    return None if shards is None else shards.parts[name]


def drawn_here(
    direction: Direction, layout: Layout, device: torch.device, dtype: torch.dtype, shards: Shards | None, *, v_only: bool = False
) -> Drawn:
    """A direction over the layout, or the parts of it that are here."""
    if shards is None:
        return draw(direction, layout, device, dtype, v_only=v_only)
    return shards.draw(direction, device, dtype, v_only=v_only)


def merged(parts: Sequence[Mapping[str, torch.Tensor]], shards: Sequence[Shards]) -> dict[str, torch.Tensor]:
    """Whole tensors from the parts of all processes; what several hold is taken from the first."""
    found = {}
    for name, shape in shards[0].whole.items():
        first = parts[0][name]
        if shards[0].parts[name].whole:
            found[name] = first.clone()
            continue
        whole = torch.empty(shape, dtype=first.dtype)
        for held, shard in reversed(list(zip(parts, shards, strict=True))):
            shard.cut(name, whole).copy_(held[name])
        found[name] = whole
    return found


def merged_factor(flats: Sequence[torch.Tensor], shards: Sequence[Shards]) -> torch.Tensor:
    """The U side of the whole layout from those of all processes."""
    names = [name for name, shape in shards[0].whole.items() if len(shape) == 2]
    rank = flats[0].numel() // sum(shards[0].layout[name][0] for name in names)
    whole = torch.empty(sum(shards[0].whole[name][0] for name in names), rank, dtype=flats[0].dtype)
    sides = dict(zip(names, whole.split([shards[0].whole[name][0] for name in names]), strict=True))
    for flat, shard in reversed(list(zip(flats, shards, strict=True))):
        held = flat.view(-1, rank).split([shard.layout[name][0] for name in names])
        for name, part in zip(names, held, strict=True):
            shard.parts[name].rows(sides[name]).copy_(part)
    return whole.flatten()


WEIGHT, PENDING = "weight:", "pending:"


def merged_snapshot(parts: Sequence[Snapshot], shards: Sequence[Shards]) -> Snapshot:
    """The snapshot that one process would have made, from those of all that share the model."""
    first = parts[0]
    weights = [{name: part.tensors[WEIGHT + name] for name in shards[0].whole} for part in parts]
    tensors = {WEIGHT + name: tensor for name, tensor in merged(weights, shards).items()}
    for name, tensor in first.tensors.items():
        if name.startswith(PENDING):
            tensors[name] = merged_factor([part.tensors[name] for part in parts], shards)
        elif not name.startswith(WEIGHT):
            tensors[name] = tensor.clone()
    return Snapshot(tensors, first.facts)


def cut_snapshot(snapshot: Snapshot, shards: Shards) -> Snapshot:
    """What of a whole snapshot belongs here."""
    tensors = dict(snapshot.tensors)
    for name, tensor in snapshot.tensors.items():
        if name.startswith(WEIGHT):
            tensors[name] = shards.cut(name.removeprefix(WEIGHT), tensor)
        elif name.startswith(PENDING):
            tensors[name] = shards.cut_factor(tensor)
    return Snapshot(tensors, snapshot.facts)


@dataclass(frozen=True)
class Place:
    """Where the entries of a flat part stand in the whole: rows of `width` entries, `stride` apart, from `first` on.

    owner   parts of a tensor with the same one are the same
    """

    first: int
    width: int
    stride: int
    owner: int

    def indices(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        at = torch.arange(start, stop, device=device)
        return self.first + at // self.width * self.stride + at % self.width


def place(shard: Shard, shape: tuple[int, ...]) -> Place:
    """Of a part in its whole tensor of that shape."""
    inner = math.prod(shape[1:])
    if shard.axis == 0 or shard.whole:
        return Place(shard.start * inner, 1, 1, shard.start)
    return Place(shard.start, shard.size, shape[1], shard.start)


def factor_places(shards: Shards, rank: int) -> list[tuple[int, Place]]:
    """Of each matrix in a flat U side: how many entries are here, and where they stand in the whole."""
    found, at = [], 0
    for name, shape in shards.whole.items():
        if len(shape) == 2:
            shard = shards.parts[name]
            start = shard.start if shard.axis == 0 else 0
            found.append((shards.layout[name][0] * rank, Place((at + start) * rank, 1, 1, at + start)))
            at += shape[0]
    return found
