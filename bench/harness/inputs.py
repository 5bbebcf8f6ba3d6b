"""What a session needs besides its executor: the model's files, the task's examples, the reference losses, a clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.api import Inputs, Probe
from bench.config import RunSpec
from bench.data import Batch
from bench.errors import UsageError
from bench.harness.clock import CudaClock, WallClock
from bench.registry import executor_entry, load

if TYPE_CHECKING:
    import torch


def prepare(spec: RunSpec, index: int = 0) -> Inputs:
    """Resolve the model and load the data of a spec; UsageError for what is missing. `index` is the session's."""
    own = executor_entry(spec.executor).inputs
    if own is not None:
        found: Inputs = load(own)(spec, index)
        return found
    from workloads.models.memory import release
    from workloads.models.table import resolve_model
    from workloads.reference import reference_losses
    from workloads.tasks.load import load_task
    from workloads.tasks.task import TaskOptions

    source = resolve_model(spec.model, spec.weights, trust_remote_code=spec.trust_remote_code)
    task = load_task(spec.task, source=source, options=TaskOptions.of(spec.to_json()))
    if len(task.train) < spec.batch_size:
        raise UsageError(
            f"--batch-size {spec.batch_size}: there are {len(task.train)} rows to train on ({task.summary['origin']}); "
            "lower it, or give more rows with --data"
        )
    if len({len(example.options) for split in (task.train, task.dev, task.eval) for example in split}) > 1:
        raise UsageError(f"--task {spec.task}: its examples have different numbers of options, which no executor scores yet")
    if len(task.train) < spec.batch_size:
        raise UsageError(
            f"--batch-size {spec.batch_size}: there are {len(task.train)} rows to train on ({task.summary['origin']}); "
            "lower it, or give more rows with --data"
        )

    def reference(batch: Batch, probes: Sequence[Probe], dtype: str) -> torch.Tensor:
        losses = reference_losses(source, replace(spec, dtype=dtype), batch, probes)
        release()  # the executor is loaded next and wants the room
        return losses

    return Inputs(source, task, reference, CudaClock() if spec.device == "cuda" else WallClock())
