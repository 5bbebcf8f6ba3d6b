"""What `bench.recorders.observe` is told about the steps it is going to watch."""

from __future__ import annotations

from dataclasses import dataclass
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

    batch, probes   the minibatch and probe plan of every profiled step (the same one each time, so that counts divide evenly)
    timed_step_s    median seconds of a core step without any recorder
    steps           how many core steps run under each recorder
    beside_bytes    held by other executors in the same process
    """

    executor: Executor
    spec: RunSpec
    source: ModelSource
    task: TaskData
    batch: Batch
    probes: tuple[Probe, ...]
    timed_step_s: float
    device: torch.device
    steps: int
    beside_bytes: int = 0
