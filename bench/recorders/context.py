"""What `bench.recorders.observe` is told about the steps it is going to watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from bench.api import Executor, Probe
from bench.data import Batch

if TYPE_CHECKING:
    import torch

    from bench.config import RunSpec
    from bench.data import ModelSource, TaskData


@dataclass(frozen=True)
class ProfileContext:
    """A loaded and warm executor after its timed pass.

    batch           the minibatch of every profiled step (the same one each time, so that counts divide evenly)
    rounds          of probes that such a step scores, one after another; the first is the plan
    timed_step_s    median seconds of a core step without any recorder
    steps           how many core steps run under each recorder
    beside_bytes    held by other executors in the same process
    """

    executor: Executor
    spec: RunSpec
    source: ModelSource
    task: TaskData
    batch: Batch
    rounds: Sequence[tuple[Probe, ...]]
    timed_step_s: float
    device: torch.device
    steps: int
    beside_bytes: int = 0

    @property
    def probes(self) -> tuple[Probe, ...]:
        """All of a step."""
        return tuple(chain.from_iterable(self.rounds))

    def work(self) -> dict[str, int]:
        """The executor's counts of such a step."""
        return self.executor.work(self.batch, *self.rounds)
