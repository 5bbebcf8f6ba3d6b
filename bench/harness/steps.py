"""The loop around the core step: each step timed by itself, its losses read a few steps late so that nothing waits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.api import Clock, Executor, Workload
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


def run_steps(
    executor: Executor, workload: Workload, steps: Iterable[int], batches: Iterator[Batch], clock: Clock
) -> Iterator[Step]:
    """Run and time the steps, one batch each. Raises Diverged at the first value that is not finite."""
    pending: deque[tuple] = deque()
    for step in steps:
        batch = next(batches)
        start = clock.mark()
        losses = clock.fetch(executor.step(workload, step, batch))
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
