"""The core step and the loop around it: each step timed by itself, its losses read a few steps late so that nothing waits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.api import Clock, Executor, StepHost, Workload, phase
from bench.data import Batch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Step:
    """One finished core step: losses [n_probes] in plan order, projected gradients [queries]."""

    step: int
    step_s: float
    losses: list[float]
    projected_gradients: list[float]


class Diverged(Exception):
    """A loss or projected gradient is not finite; the message names the step, the probe and what to do."""


def core_step(executor: Executor, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
    """Perturb, score, update: on the device where the executor can host the workload, else call by call. Losses [n_probes]."""
    if isinstance(executor, StepHost):
        return executor.run_steps(workload, step, [batch])[0]
    with phase("host"):
        probes = workload.plan(step)
    losses = executor.score(batch, probes)
    with phase("host"):
        update = workload.update(step, losses)
    executor.apply(update)
    return losses


def run_steps(
    executor: Executor, workload: Workload, steps: Iterable[int], batches: Iterator[Batch], clock: Clock
) -> Iterator[Step]:
    """Run and time the steps, one batch each. Raises Diverged at the first value that is not finite."""
    pending: deque[tuple] = deque()
    for step in steps:
        batch = next(batches)
        start = clock.mark()
        losses = clock.fetch(core_step(executor, workload, step, batch))
        pending.append((step, start, clock.mark(), losses))
        if len(pending) > clock.lag:
            yield _read(workload, clock, *pending.popleft())
    while pending:
        yield _read(workload, clock, *pending.popleft())


def _read(workload: Workload, clock: Clock, step: int, start: object, end: object, losses: torch.Tensor) -> Step:
    step_s = clock.seconds(start, end)
    values: list[float] = losses.tolist()
    gradients: list[float] = workload.projected_gradients(losses).tolist()
    for what, found in (("loss of probe", values), ("projected gradient of query", gradients)):
        for index, value in enumerate(found):
            if not math.isfinite(value):
                advice = "lower --learning-rate or --eps, or use a wider --dtype"
                raise Diverged(f"step {step}: {what} {index} is {value}; {advice}")
    return Step(step, step_s, values, gradients)
