"""The state that is never folded, against sums in float64: what the slots hold, what compression loses, what a restart brings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from bench.api import Direction
from bench.serving.slots import StackedSlots
from workloads.directions import draw
from workloads.parameters.stacked import StackedState

LAYOUT = {"a.weight": (24, 40), "b.weight": (40, 24), "c.weight": (24, 24)}
RANK, INTERVAL, WIDTH = 2, 3, 16


def slots(kind: str) -> tuple[StackedSlots, dict[str, Any]]:
    slices = {name: (torch.zeros(3, 1, WIDTH, inp), torch.zeros(3, 1, out, WIDTH)) for name, (out, inp) in LAYOUT.items()}
    return StackedSlots(slices, LAYOUT, RANK, accumulates=kind == "lowrank"), slices


def direction(kind: Any, step: int) -> Direction:
    return Direction(kind, 0, step, 0, RANK, INTERVAL)


def train(state: StackedState, kind: str, steps: range, truth: dict[str, torch.Tensor]) -> None:
    for step in steps:
        drawn, amount = draw(direction(kind, step), LAYOUT, "cpu"), 0.1 * math.sin(step + 1)
        current = drawn.direction.epoch if kind == "lowrank" else None
        while state.width(current) > state.room:
            state.compress(current, 2)
        state.state.add(drawn, torch.tensor(amount))
        for name in LAYOUT:
            truth[name] += amount * drawn.scale * (drawn.u(name).double() @ drawn.v(name).double().t())


def zeros() -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape, dtype=torch.float64) for name, shape in LAYOUT.items()}


@pytest.mark.parametrize("kind", ["lowrank", "factorized"])
def test_a_slot_holds_everything_learned_and_the_probe(kind: str) -> None:
    room = slots(kind)[0].room
    steps = range(INTERVAL * (room // RANK) if kind == "lowrank" else room // RANK)
    state, truth = StackedState(LAYOUT, "cpu", torch.float32, room), zeros()
    train(state, kind, steps, truth)
    made, slices = slots(kind)
    probe = draw(direction(kind, len(steps)), LAYOUT, "cpu")
    current = probe.direction.epoch if kind == "lowrank" else None
    assert state.width(current) == room  # full, and nothing compressed
    made.set_past("now", state.factors(current))
    made.write(1, probe, -0.01, state.state.factor(probe.direction.epoch) if current else None)
    for name, (a, b) in slices.items():
        found = b[1, 0].double() @ a[1, 0].double()
        expected = truth[name] - 0.01 * probe.scale * (probe.u(name).double() @ probe.v(name).double().t())
        assert torch.allclose(found, expected, rtol=0, atol=2e-6)
        assert not a[0].any() and not b[2].any()
    made.clear(1)
    assert not any(tensor[1].any() for pair in slices.values() for tensor in pair)


@pytest.mark.parametrize("kind", ["lowrank", "factorized"])
def test_compression_loses_what_it_says_and_no_more_than_the_best_does(kind: str) -> None:
    state, truth = StackedState(LAYOUT, "cpu", torch.float32, 6), zeros()
    train(state, kind, range(40 if kind == "lowrank" else 12), truth)
    assert state.compressions > 1
    values = {name: sum(b.double() @ a.double() for b, a in [pair]) for name, pair in state.factors(None).items()}
    gap = math.sqrt(sum(float(((values[name] - truth[name]) ** 2).sum()) for name in LAYOUT))
    assert 0 < gap <= state.lost * (1 + 1e-5)
    once, truth = StackedState(LAYOUT, "cpu", torch.float32, 6), zeros()
    train(once, kind, range(12 if kind == "lowrank" else 4), truth)  # four epochs, of which three and then one are compressed
    before = once.compressions
    whole = {name: b.double() @ a.double() for name, (b, a) in once.factors(None).items()}
    while once.compress(None, 1):
        pass
    assert once.compressions == before + 1
    tails = sum(float((torch.linalg.svdvals(whole[name])[4:] ** 2).sum()) for name in LAYOUT)
    norm = math.sqrt(sum(float((whole[name] ** 2).sum()) for name in LAYOUT))
    assert once.last_error == pytest.approx(math.sqrt(tails) / norm, rel=1e-4)


def test_a_past_that_fits_in_the_kept_columns_is_compressed_without_loss() -> None:
    state, truth = StackedState(LAYOUT, "cpu", torch.float32, 40), zeros()  # 30 columns hold any 24 x 24 matrix
    train(state, "lowrank", range(70), truth)
    assert state.compressions == 1
    for name, (b, a) in state.factors(None).items():
        assert torch.allclose(b.double() @ a.double(), truth[name], rtol=0, atol=1e-5)
    assert state.last_error < 1e-5


def test_a_snapshot_brings_back_the_same_bits() -> None:
    state, other = (StackedState(LAYOUT, "cpu", torch.float32, 6) for _ in range(2))
    train(state, "lowrank", range(14), zeros())
    other.restore(state.snapshot())
    assert other.checksum() == state.checksum()
    assert other.facts() == state.facts()
    for one in (state, other):
        train(one, "lowrank", range(14, 30), zeros())
    assert other.checksum() == state.checksum()
