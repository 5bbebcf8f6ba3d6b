"""What a session needs besides its executor: the model's files, the task's examples, the reference losses, a clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.api import Batch, Probe
from bench.config import RunSpec
from bench.harness.clock import Clock, CudaClock, WallClock

if TYPE_CHECKING:
    import torch

Reference = Callable[[Batch, Sequence[Probe], str], "torch.Tensor"]


@dataclass(frozen=True)
class Inputs:
    """`reference(batch, probes, dtype)` gives losses [n_probes] by a plain Hugging Face forward in that dtype.

    profiled    whether there is a model for the recorders to watch
    """

    source: Any
    task: Any
    reference: Reference
    clock: Clock
    profiled: bool = True


def prepare(spec: RunSpec, index: int = 0) -> Inputs:
    """Resolve the model and load the data of a spec; UsageError for what is missing. `index` is the session's."""
    if spec.executor == "fake":
        from bench.executors.fake import inputs

        return inputs(spec, index)
    from workloads.memory import release
    from workloads.models import resolve_model
    from workloads.reference import reference_losses
    from workloads.tasks import load_task

    source = resolve_model(spec.model, spec.weights, trust_remote_code=spec.trust_remote_code)
    task = load_task(spec.task, source=source, data=spec.data, data_seed=spec.data_seed)

    def reference(batch: Batch, probes: Sequence[Probe], dtype: str) -> torch.Tensor:
        losses = reference_losses(source, replace(spec, dtype=dtype), batch, probes)
        release()  # the executor is loaded next and wants the room
        return losses

    return Inputs(source, task, reference, CudaClock() if spec.device == "cuda" else WallClock())
