"""The methods' plans and updates, and the accumulated state between folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from bench.api import Direction, Probe, Workload
from workloads import directions
from workloads.conservative import Conservative
from workloads.directions import draw
from workloads.eggroll import Eggroll
from workloads.factorized import Factorized
from workloads.fzoo import FZOO
from workloads.lozo import LoZO
from workloads.lozo_m import LoZOM
from workloads.mezo import MeZO
from workloads.mezo_m import MeZOM
from workloads.one_sided import OneSided
from workloads.parameters.accumulated import AccumulatedState
from workloads.parameters.parameters import Parameters
from workloads.parameters.rounding import add_
from workloads.schedule import Schedule
from workloads.steps import core_step
from workloads.three_points import ThreePoints
from workloads.zo_adam import ZOAdam
from workloads.zo_sign import ZOSign

METHODS: list[Any] = [LoZO, MeZO, Factorized]
OTHERS: list[Any] = [OneSided, FZOO, Eggroll, ZOSign, ThreePoints, Conservative, LoZOM, MeZOM, ZOAdam]
LAYOUT = {"a": (5, 4), "bias": (5,), "b": (3, 6)}


def method(kind: Any, **changes: Any) -> Any:
    return kind(**({"learning_rate": 0.1, "eps": 0.01, "rank": 2, "interval": 3, "queries": 2, "seed": 7} | changes))


@pytest.mark.parametrize("kind", METHODS)
def test_the_plan_scores_both_sides_of_every_query(kind: Any) -> None:
    chosen = method(kind)
    assert isinstance(chosen, Workload)
    plan = chosen.plan(4)
    assert [probe.shift for probe in plan] == [0.01, -0.01, 0.01, -0.01]
    assert [probe.direction.query for probe in plan] == [0, 0, 1, 1]
    assert {(probe.direction.seed, probe.direction.step) for probe in plan} == {(7, 4)}


@pytest.mark.parametrize("kind", METHODS)
def test_the_update_is_the_mean_of_the_queries_along_what_was_measured(kind: Any) -> None:
    chosen, losses = method(kind), torch.tensor([0.7, 0.6, 0.5, 0.8])
    gradients = chosen.projected_gradients(losses)
    assert gradients.tolist() == pytest.approx([5.0, -15.0], rel=1e-5)
    update = chosen.update(4, losses)
    assert [direction for direction, _ in update.terms] == [chosen.plan(4)[0].direction, chosen.plan(4)[2].direction]
    assert [float(c) for _, c in update.terms] == pytest.approx([-0.1 * 5 / 2, 0.1 * 15 / 2], rel=1e-5)
    assert all(c.ndim == 0 for _, c in update.terms)
    history = torch.stack([losses, losses + 1])
    assert torch.allclose(chosen.projected_gradients(history), gradients.expand(2, 2), atol=1e-4)


@pytest.mark.parametrize("kind", [OneSided, FZOO])
def test_one_sided_plans_score_theta_once(kind: Any) -> None:
    chosen = method(kind)
    assert isinstance(chosen, Workload)
    plan = chosen.plan(4)
    assert [(probe.shift, probe.direction.query) for probe in plan] == [(0.0, 0), (0.01, 0), (0.01, 1)]
    losses = torch.tensor([0.5, 0.7, 0.4])
    assert chosen.projected_gradients(losses).tolist() == pytest.approx([20.0, -10.0], rel=1e-5)
    assert [direction for direction, _ in chosen.update(4, losses).terms] == [plan[1].direction, plan[2].direction]


def test_fzoo_divides_by_the_spread_and_stands_still_where_there_is_none() -> None:
    chosen = method(FZOO, queries=3)
    found = chosen.coefficients(0, torch.tensor([1.0, 1.1, 1.2, 1.3]))
    assert found.tolist() == pytest.approx([-0.1 / 3 * 1, -0.1 / 3 * 2, -0.1 / 3 * 3], rel=1e-4)
    scaled = chosen.coefficients(0, torch.tensor([10.0, 11.0, 12.0, 13.0]))
    assert torch.allclose(scaled, found, rtol=1e-4)
    assert chosen.coefficients(0, torch.tensor([1.0, 2.0, 2.0, 2.0])).tolist() == [0.0] * 3


@pytest.mark.parametrize(("losses", "expected"), [
    ([1.0, 2.0, 0.9, 0.8, 1.5], [0.0, 0.1]),
    ([1.0, 2.0, 0.7, 0.8, 1.5], [-0.1, 0.0]),
    ([0.6, 2.0, 0.7, 0.8, 1.5], [0.0, 0.0]),
])  # fmt: skip
def test_three_points_keep_the_best(losses: list[float], expected: list[float]) -> None:
    chosen = method(ThreePoints)
    assert [probe.shift for probe in chosen.plan(0)] == [0.0, 0.1, -0.1, 0.1, -0.1]
    assert chosen.coefficients(0, torch.tensor(losses)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("losses", "expected"), [
    ([0.9, 0.8, 1.0, 0.7, 1.5], -0.5),
    ([0.9, 0.8, 1.0, 1.1, 0.6], 0.5),
    ([0.9, 0.8, 0.5, 0.7, 0.6], 0.0),
    ([0.8, 0.8, 1.0, 1.0, 1.0], 0.0),
])  # fmt: skip
def test_a_conservative_step_scores_where_the_slope_leads_and_keeps_the_best(losses: list[float], expected: float) -> None:
    chosen, given = method(Conservative, queries=1), torch.tensor(losses)
    assert isinstance(chosen, Workload)
    plan, then = chosen.plan(4), chosen.then(4, given[:2])
    assert {probe.direction for probe in (*plan, *then)} == {chosen.direction(4, 0)}
    slope = (losses[0] - losses[1]) / 0.02
    assert [probe.shift for probe in (*plan, *then)] == pytest.approx([0.01, -0.01, 0.0, -0.1 * slope, 0.1 * slope], rel=1e-5)
    assert chosen.coefficients(4, given).tolist() == pytest.approx([expected], rel=1e-5)
    assert chosen.projected_gradients(given).tolist() == chosen.projected_gradients(given[:2]).tolist()


def test_evolution_standardises_over_the_population() -> None:
    found = method(Eggroll).coefficients(0, torch.tensor([3.0, 1.0, 2.0, 2.0]))
    assert found.tolist() == pytest.approx([-0.1 / 4 * 2 / 0.5**0.5, 0.0], abs=1e-7)
    assert method(Eggroll).coefficients(0, torch.ones(4)).tolist() == [0.0, 0.0]


def test_signs_alone_move_zo_sign() -> None:
    found = method(ZOSign).coefficients(0, torch.tensor([0.7, 0.6, 0.5, 0.8]))
    assert found.tolist() == pytest.approx([-0.05, 0.05])


@pytest.mark.parametrize(("schedule", "expected"), [
    (Schedule(), [1, 1, 1, 1, 1, 1]),
    (Schedule("constant", 2, 6), [1 / 2, 1, 1, 1, 1, 1]),
    (Schedule("linear", 0, 4), [1, 3 / 4, 2 / 4, 1 / 4, 0, 0]),
    (Schedule("linear", 2, 4), [1 / 2, 1, 1, 1 / 2, 0, 0]),
    (Schedule("cosine", 0, 4), [1, (1 + 2**-0.5) / 2, 1 / 2, (1 - 2**-0.5) / 2, 0, 0]),
])  # fmt: skip
def test_schedules(schedule: Schedule, expected: list[float]) -> None:
    assert [schedule.share(step) for step in range(6)] == pytest.approx(expected)
    assert method(LoZO, schedule=schedule).rate(1) == pytest.approx(0.1 * expected[1])


def test_a_redrawn_mean_forgets_what_weighs_next_to_nothing() -> None:
    """At beta 0.1 three steps stand for the mean: the difference to a kept one is a thousandth."""
    layout, found = {"w": (8, 6), "b": (8,)}, []
    for window in (0, 3):
        chosen = method(MeZOM, beta=0.1, window=window, queries=1)
        moved = Parameters(
            {name: torch.zeros(shape) for name, shape in layout.items()}, layout, torch.device("cpu"), torch.float32
        )
        for step in range(12):
            moved.apply(chosen.update(step, torch.tensor([1.0 + step, 0.9])))
        found.append(torch.cat([value.flatten() for value in moved.values().values()]))
        assert moved.nbytes()["running_means"] == (3 * 4 if window else 4 * (48 + 8))
    assert 0 < (found[0] - found[1]).norm() / found[0].norm() < 2e-3


def test_momentum_of_low_rank_directions_is_as_small_as_u() -> None:
    layout = {"a": (50, 40), "b": (30, 60)}
    moved = Parameters({name: torch.zeros(shape) for name, shape in layout.items()}, layout, torch.device("cpu"), torch.float32)
    chosen = method(LoZOM, queries=2)
    for step in range(5):
        moved.apply(chosen.update(step, torch.tensor([1.0, 0.9, 0.8, 0.9])))
        assert moved.nbytes()["running_means"] == 4 * 2 * (50 + 30)


def test_kinds_ranks_and_epochs() -> None:
    lozo, mezo, factorized = (method(kind).plan(5)[2].direction for kind in METHODS)
    assert (lozo.kind, lozo.rank, lozo.epoch) == ("lowrank", 2, (1, 0))
    assert (mezo.kind, mezo.rank) == ("dense", 0)
    assert (factorized.kind, factorized.rank, factorized.epoch) == ("factorized", 2, (5, 1))


@pytest.mark.parametrize("kind", [*METHODS, *OTHERS])
def test_steps_descend_a_quadratic(kind: Any) -> None:
    rate = {FZOO: 0.1, Eggroll: 0.2, ZOSign: 0.1, ThreePoints: 0.1, ZOAdam: 0.1}.get(kind, 0.01)
    chosen = method(kind, learning_rate=rate, queries=1 if kind is Conservative else 4, interval=5)
    torch.manual_seed(0)
    weight, target = torch.zeros(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return (w - target).square().sum()

    layout, before = {"w": (5, 4)}, loss(weight)
    moved = Parameters({"w": torch.zeros(5, 4)}, layout, torch.device("cpu"), torch.float32)

    class Host:
        apply = moved.apply

        def score(self, batch: Any, probes: Sequence[Probe]) -> torch.Tensor:
            weight = moved.values()["w"].double()
            deltas = [draw(probe.direction, layout, "cpu").delta("w").double() * probe.shift for probe in probes]
            return torch.stack([loss(weight + delta) for delta in deltas]).float()

    for step in range(150):
        core_step(Host(), chosen, step, ())
    assert loss(moved.values()["w"].double()) < 0.2 * before


def lowrank(step: int, query: int = 0) -> Direction:
    return Direction("lowrank", 0, step, query, 2, 3)


def test_the_accumulated_state_is_the_sum_of_its_updates() -> None:
    state, expected = AccumulatedState(LAYOUT, "cpu", torch.float32), {name: torch.zeros(LAYOUT[name]) for name in ("a", "b")}
    for step in range(5):  # two epochs of V
        drawn = draw(lowrank(step), LAYOUT, "cpu")
        state.add(drawn, torch.tensor(0.1 * (step + 1)))
        for name in expected:
            expected[name] += 0.1 * (step + 1) * drawn.u(name) @ drawn.v(name).T
    assert list(state.pending) == [(0, 0), (1, 0)]
    assert state.stale({(1, 0)}) == [(0, 0)]
    values = state.values()
    assert values.delta("bias") is None
    weights = {name: torch.ones(shape) for name, shape in LAYOUT.items()}
    for name in expected:
        assert torch.allclose(values.delta(name), expected[name], atol=1e-6)
    state.fold(weights, [(0, 0), (1, 0)])
    assert all(torch.allclose(weights[name], 1 + expected[name], atol=1e-6) for name in expected)
    assert torch.equal(weights["bias"], torch.ones(5))
    assert not state.pending
    assert state.nbytes() == 0


def test_the_accumulated_state_scales_factorized_terms_and_keeps_queries_apart() -> None:
    state = AccumulatedState(LAYOUT, "cpu", torch.float32)
    drawn = [draw(Direction("factorized", 0, 2, query, 4), LAYOUT, "cpu") for query in range(2)]
    for found in drawn:
        state.add(found, torch.tensor(2.0))
    expected = sum(2.0 * found.u("b") @ found.v("b").T / 2 for found in drawn)  # 1 / sqrt(rank)
    assert torch.allclose(state.values().delta("b"), expected, atol=1e-5)
    assert state.factor((2, 1)).shape == (8, 4)
    assert state.factor((3, 0)) is None


def test_a_fold_draws_v_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The U side is what was accumulated; drawing it again would be as dear as the fold of a tall matrix."""
    drawn, state = draw(lowrank(0), LAYOUT, "cpu"), AccumulatedState(LAYOUT, "cpu", torch.float32)
    state.add(drawn, torch.tensor(2.0))
    kinds, gaussian = [], directions.gaussian

    def noted(shape: tuple[int, ...], device: Any, *seed: object) -> torch.Tensor:
        kinds.append(seed[0])
        return gaussian(shape, device, *seed)

    monkeypatch.setattr(directions, "gaussian", noted)
    weights = {"a": torch.zeros(5, 4)}
    state.fold(weights, [(0, 0)])
    assert kinds == ["v"]
    assert torch.allclose(weights["a"], 2 * drawn.delta("a"), atol=1e-6)


def test_a_16_bit_fold_rounds_by_seed_step_and_name_and_reports_what_came_through() -> None:
    def folded(more: int) -> tuple[torch.Tensor, dict]:
        layout = {"w": (64, 64)}
        state = AccumulatedState(layout, "cpu", torch.float16)
        state.add(draw(lowrank(1 + more), layout, "cpu", torch.float16), torch.tensor(1e-5))
        weight = torch.linspace(-1, 1, 64 * 64).view(64, 64).half()
        by_hand = weight.clone()
        add_(by_hand, state.values().delta("w"), 0, 1 + more, "w")
        state.fold({"w": weight}, [(0, 0)])
        assert torch.equal(weight, by_hand)
        return weight, state.facts()

    (first, facts), (again, _), (other, _) = folded(0), folded(0), folded(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert facts["folds"] == 1
    assert 0 < facts["fold_absorbed_fraction"] < 0.5
    assert 0 < facts["fold_cosine"] < 1
    assert AccumulatedState({}, "cpu", torch.float16).facts()["fold_cosine"] is None
