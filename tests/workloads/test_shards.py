"""What processes that share a model hold together is what one would hold: directions, rounding, checksums, snapshots."""

from __future__ import annotations

import torch

from bench.api import Direction, Update
from workloads.parameters.checksum import joined
from workloads.parameters.parameters import Parameters
from workloads.parameters.shards import Shard, Shards, merged, merged_snapshot

LAYOUT = {"q.weight": (48, 32), "kv.weight": (16, 32), "out.weight": (32, 48), "norm.weight": (32,), "head.weight": (80, 32)}
"""Parts begin and end where a vector of the CPU's does: its products of odd shapes round their last columns otherwise."""


def parts(rank: int) -> dict[str, Shard]:
    """Three ranks: rows, rows that every rank holds whole, columns, a vector, and rows that three does not divide."""
    start, stop = (0, 32, 64, 80)[rank : rank + 2]
    return {
        "q.weight": Shard(0, 16 * rank, 16, 48),
        "kv.weight": Shard(0, 0, 16, 16),
        "out.weight": Shard(1, 16 * rank, 16, 48),
        "norm.weight": Shard(0, 0, 32, 32),
        "head.weight": Shard(0, start, stop - start, 80),
    }


SHARDS = [Shards(LAYOUT, parts(rank)) for rank in range(3)]
DIRECTIONS = [Direction("lowrank", 3, 1, 0, 2, 4), Direction("factorized", 3, 1, 1, 3), Direction("dense", 3, 1)]


def test_directions_are_cut_from_the_whole_one() -> None:
    from workloads.directions import draw

    for direction in DIRECTIONS:
        whole = draw(direction, LAYOUT, "cpu", torch.float16)
        for shards in SHARDS:
            here = shards.draw(direction, torch.device("cpu"), torch.float16)
            for name in LAYOUT:
                assert torch.equal(here.delta(name), shards.cut(name, whole.delta(name)).contiguous()), (direction.kind, name)


def test_checksum_snapshot_and_values_do_not_depend_on_the_number_of_processes() -> None:
    torch.manual_seed(0)
    weights = {name: (torch.randn(shape) * 0.02).half() for name, shape in LAYOUT.items()}
    start = {name: weight.clone() for name, weight in weights.items()}
    cpu, half = torch.device("cpu"), torch.float16
    one = Parameters(weights, LAYOUT, cpu, half)
    several = [
        Parameters({name: shards.cut(name, start[name]).clone() for name in LAYOUT}, LAYOUT, cpu, half, shards)
        for shards in SHARDS
    ]

    for step in range(6):
        direction = Direction("lowrank", 3, step, 0, 2, 2)
        for parameters in (one, *several):
            parameters.fold({direction.epoch})
            parameters.apply(Update(((direction, torch.tensor(3e-3)),), decay=1e-2))
        assert joined([parameters.sums() for parameters in several]) == one.checksum(), step
    values = merged([parameters.values() for parameters in several], SHARDS)
    assert all(torch.equal(value, values[name]) for name, value in one.values().items())
    saved = merged_snapshot([parameters.snapshot() for parameters in several], SHARDS)
    other = Parameters({name: torch.zeros_like(weight) for name, weight in weights.items()}, LAYOUT, cpu, half)
    other.restore(saved)
    assert other.checksum() == one.checksum()
    for parameters in several:
        parameters.restore(one.snapshot())
    assert joined([parameters.sums() for parameters in several]) == one.checksum()
    weights["norm.weight"][3] += 1
    assert joined([parameters.sums() for parameters in several]) != one.checksum()
