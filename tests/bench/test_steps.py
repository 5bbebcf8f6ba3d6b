"""The step loop: the order of calls, late reading, and values that are not finite."""

from __future__ import annotations

from itertools import repeat

import pytest
import torch

from bench.harness.clock import WallClock
from bench.harness.steps import Diverged, fold_every, kind_of, run_steps
from workloads.factorized import Factorized
from workloads.lozo import LoZO
from workloads.mezo import MeZO
from workloads.steps import core_step

SETTINGS = dict(learning_rate=1e-3, eps=0.5, rank=2, interval=2, queries=1, seed=0)
WORKLOAD = LoZO(**SETTINGS)


class Calls:
    """Writes down what it is asked to do; the loss of a probe is step + shift."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def score(self, batch, probes):
        step = probes[0].direction.step
        self.log.append(f"score {step}")
        return torch.tensor([step + probe.shift for probe in probes])

    def apply(self, update):
        ((direction, coefficient),) = update.terms
        self.log.append(f"apply {direction.step} {float(coefficient):.4f}")

    def step(self, workload, step, batch):
        return core_step(self, workload, step, batch)


class Hosting(Calls):
    def step(self, workload, step, batch):
        self.log.append(f"host {step}")
        return torch.tensor([step + probe.shift for probe in workload.plan(step)])


class Late(WallClock):
    """Allows two steps in flight, as a GPU's clock does, and notes each reading."""

    lag = 2

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def seconds(self, start, end):
        self.log.append("read")
        return super().seconds(start, end)


def test_score_then_apply_each_step():
    executor = Calls()
    steps = list(run_steps(executor, WORKLOAD, range(3, 5), repeat(()), WallClock()))
    assert executor.log == ["score 3", "apply 3 -0.0010", "score 4", "apply 4 -0.0010"]
    assert [(s.step, s.losses, s.projected_gradients) for s in steps] == [(3, [3.5, 2.5], [1.0]), (4, [4.5, 3.5], [1.0])]
    assert all(s.step_s > 0 for s in steps)


def test_an_executor_that_can_hosts_the_workload():
    executor = Hosting()
    list(run_steps(executor, WORKLOAD, range(2), repeat(()), WallClock()))
    assert executor.log == ["host 0", "host 1"]


def test_losses_are_read_late_and_in_order():
    executor = Hosting()
    steps = list(run_steps(executor, WORKLOAD, range(4), repeat(()), Late(executor.log)))
    assert executor.log == ["host 0", "host 1", "host 2", "read", "host 3", "read", "read", "read"]
    assert [step.step for step in steps] == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(value):
    class Broken(Calls):
        def score(self, batch, probes):
            losses = super().score(batch, probes)
            losses[1] = value if probes[0].direction.step == 2 else losses[1]
            return losses

    executor = Broken()
    with pytest.raises(Diverged, match=f"step 2: loss of probe 1 is {value}; lower --learning-rate"):
        list(run_steps(executor, WORKLOAD, range(9), repeat(()), WallClock()))
    assert executor.log[-1].startswith("apply 2")


def kinds(workload, folds, steps=5):
    return [kind_of(workload, step, folds=folds, paused=step == 1) for step in range(steps)]


def test_a_step_says_of_what_kind_it_was():
    assert kinds(WORKLOAD, folds=True) == ["resample", "paused", "fold", "plain", "fold"]
    assert kinds(WORKLOAD, folds=False) == ["resample", "paused", "resample", "plain", "resample"]
    assert kinds(Factorized(**SETTINGS), folds=True) == ["plain", "fold", "fold", "fold", "fold"]
    assert kinds(MeZO(**SETTINGS), folds=False) == ["plain", "paused", "plain", "plain", "plain"]


@pytest.mark.parametrize(("workload", "every"), [(LoZO, 2), (Factorized, 1), (MeZO, 1)])
def test_how_often_it_folds_follows_from_the_plan_and_the_counts(workload, every):
    class Counting:
        def __init__(self, folded):
            self.folded = folded

        def work(self, batch, probes):
            return {"fold_bytes_written": self.folded}

    assert fold_every(Counting(8), workload(**SETTINGS), ()) == every
    assert fold_every(Counting(0), workload(**SETTINGS), ()) is None


def test_the_first_step_after_a_pause_is_named():
    steps = list(run_steps(Calls(), WORKLOAD, range(3, 6), repeat(()), WallClock()))
    assert [step.kind for step in steps] == ["paused", "resample", "plain"]
