"""What a session needs besides its executor: the model's files, the task's examples, the reference losses, a clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from bench.api import Clock, Inputs, Probe
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
    from workloads.models.adapter import SCOPE, Adapter
    from workloads.models.digest import model_digest
    from workloads.models.memory import release
    from workloads.models.overflow import refuse_overflow, refuse_zeros
    from workloads.models.positions import refuse_unknown_ids
    from workloads.models.scope import Trained
    from workloads.models.table import resolve_model
    from workloads.reference import reference_losses
    from workloads.tasks.load import load_task
    from workloads.tasks.task import TaskOptions

    source = resolve_model(spec.model, spec.weights, trust_remote_code=spec.trust_remote_code)
    adapter = Adapter.of(source, spec) if spec.scope == SCOPE else None
    trained = adapter.trained(source) if adapter else Trained.of_model(source, spec.scope)
    task = load_task(spec.task, source=source, options=TaskOptions.of(spec.to_json()))
    refuse_unknown_ids(source, task)
    if len(task.train) < spec.batch_size:
        raise UsageError(
            f"--batch-size {spec.batch_size}: there are {len(task.train)} rows to train on ({task.summary['origin']}); "
            "lower it, or give more rows with --data"
        )

    def reference(batch: Batch, probes: Sequence[Probe], dtype: str) -> torch.Tensor:
        products = dtype == "fp8"
        dtype = spec.dtype if products else dtype
        losses = reference_losses(source, replace(spec, dtype=dtype), batch, probes, products=products)
        release()  # the executor is loaded next and wants the room
        found = losses.tolist()
        refuse_overflow(source, dtype, spec.device, batch, found)
        if dtype != "float32" and not any(found):
            refuse_zeros(source, dtype, found, reference(batch, probes, "float32").tolist())
        return losses

    here = spec.device == "cuda" and not spec.elsewhere
    clock: Clock = CudaClock() if here else WallClock()
    facts: Any = {"model": model_digest(source), "trains": asdict(trained), "warnings": trained.warnings()}
    return Inputs(source, task, reference, clock, **facts)


def batches_of(spec: RunSpec, inputs: Inputs) -> Iterator[Batch]:
    """What each step scores, without end: the same for every executor of a spec."""
    from workloads.tasks.batches import batch_stream

    return batch_stream(inputs.task.train, spec.batch_size, spec.seed, spec.accumulate)


DIGESTS = ("digest", "model_digest")


def digests(inputs: Inputs) -> dict[str, str]:
    """Of the task's data and of the model's files, as a run records them."""
    return {"digest": inputs.task.digest} | ({"model_digest": inputs.model} if inputs.model else {})


def described(inputs: Inputs) -> tuple[dict[str, Any], list[str]]:
    """The event that says what a process has read, and every warning about it."""
    summary = dict(inputs.task.summary)
    warnings = [*summary.pop("warnings", ()), *inputs.warnings]
    return {"event": "data", **digests(inputs), **summary}, warnings


def refuse_others(inputs: Inputs, recorded: Mapping[str, Any], spec: RunSpec) -> None:
    """UsageError when the model or the data are not those that a run has recorded."""
    found = digests(inputs)
    if recorded.get("model_digest", found.get("model_digest")) != found.get("model_digest"):
        raise UsageError(
            f"--model {spec.model}: its files are not those the run began with; restore them, or give the folder they are in now"
        )
    if recorded.get("digest", found["digest"]) != found["digest"]:
        data = f"--data {spec.data}" if spec.data else f"--task {spec.task}"
        raise UsageError(f"{data}: the examples are not those the run began with; restore them, or run again")
