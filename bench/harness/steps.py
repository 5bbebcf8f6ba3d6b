"""The loop around the core step: each step timed by itself, its losses read a few steps late so that nothing waits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.api import Clock, Executor, Workload
from bench.data import Batch
from bench.result import StepKind
from workloads.steps import rounds

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Step:
    """One finished core step: losses [n_probes] in the order they were scored, projected gradients [queries]."""

    step: int
    step_s: float
    kind: StepKind
    losses: list[float]
    projected_gradients: list[float]


class Diverged(Exception):
    """A loss or projected gradient is not finite; the message names the step, the probe and what to do."""


def fold_every(executor: Executor, workload: Workload, batch: Batch) -> int | None:
    """Steps from one fold to the next, from the plan and the executor's own counts; None where nothing is ever folded."""
    plan, *then = rounds(workload)
    return plan[0].direction.kept if executor.work(batch, plan, *then)["fold_bytes_written"] else None


def size_of_forward(executor: Executor, workload: Workload, batch: Batch) -> dict[str, Any]:
    """max_tokens: the most that one forward may have (None: no limit is known); forwards: what a step over this batch takes."""
    forwards = executor.work(batch, *rounds(workload))["forwards"]
    return {"max_tokens": executor.details().get("max_tokens"), "forwards": forwards}


def kind_of(workload: Workload, step: int, *, folds: bool, paused: bool) -> StepKind:
    """Known from the plan alone. Where V is never kept, every step but the first is of one kind."""
    direction = workload.plan(step)[0].direction
    anew = step == 0 or workload.plan(step - 1)[0].direction.epoch != direction.epoch
    if anew and folds and step > 0:
        return "fold"
    if anew and direction.kept > 1:
        return "resample"
    return "paused" if paused else "plain"


def run_steps(
    executor: Executor,
    workload: Workload,
    steps: Iterable[int],
    batches: Iterator[Batch],
    clock: Clock,
    *,
    folds: bool = False,
    paused: bool = True,
) -> Iterator[Step]:
    """Run and time the steps, one batch each. Raises Diverged at the first value that is not finite.

    folds     whether the executor has an accumulated state to fold when V is drawn anew
    paused    whether something else was done before the first of them
    """
    pending: deque[tuple] = deque()
    for step in steps:
        batch, kind, paused = next(batches), kind_of(workload, step, folds=folds, paused=paused), False
        start = clock.mark()
        losses = clock.fetch(executor.step(workload, step, batch))
        pending.append((step, kind, start, clock.mark(), losses))
        if len(pending) > clock.lag:
            yield _read(workload, clock, *pending.popleft())
    while pending:
        yield _read(workload, clock, *pending.popleft())


def _read(workload: Workload, clock: Clock, step: int, kind: StepKind, start: object, end: object, losses: torch.Tensor) -> Step:
    step_s = clock.seconds(start, end)
    values: list[float] = losses.tolist()
    gradients: list[float] = workload.projected_gradients(losses).tolist()
    for what, found in (("loss of probe", values), ("projected gradient of query", gradients)):
        for index, value in enumerate(found):
            if not math.isfinite(value):
                advice = "lower --learning-rate or --eps, or use a wider --dtype"
                raise Diverged(f"step {step}: {what} {index} is {value}; {advice}")
    return Step(step, step_s, kind, values, gradients)
