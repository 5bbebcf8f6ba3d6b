"""Blocks: several points in one process, each engine loaded once, interleaved so that a drift of the machine weighs on all alike.

A block is a stretch of timed steps of one point; rounds go through the points forwards and backwards in turn (serpentine).
`python -m bench.harness.blocks FD` reads its job from stdin and reports events as a session does, and besides
    block            point, round, step_s, losses
    point            point, checks, details
    point_findings   point, findings
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from typing import Any

from bench.api import Batch, Executor
from bench.config import RunSpec
from bench.harness import gate
from bench.harness.events import Emit
from bench.harness.inputs import Inputs, prepare
from bench.harness.steps import core_step, run_steps
from bench.registry import EXECUTORS, resolve
from workloads.make import make_workload
from workloads.tasks.batches import batch_stream

SETTLING = 2
"""Steps of a point before its block is timed: the switch, and V into the slots."""
PROFILED_STEPS = 3
PlannedPoint = tuple[int, dict[str, Any], str]


@dataclass(frozen=True)
class BlocksJob:
    """loads: the spec each executor is loaded with, largest first; points: (index into loads, spec of the point, its variant)."""

    loads: list[dict[str, Any]]
    points: list[PlannedPoint]
    rounds: int
    steps: int
    first_round: int = 0
    profile: bool = True
    index: int = 0


@dataclass
class Loaded:
    """An executor with where its run stands; the points on it share one trajectory."""

    inputs: Inputs
    executor: Any
    numbers: Iterator[int]


def run_blocks(job: BlocksJob, emit: Emit) -> None:
    """Load everything, check every point against the reference, then the rounds, then a profiled pass of each point.

    The reference is computed first, while the device is empty; all points of a round are given the same batches.
    """
    loaded: list[Loaded] = []
    specs = [RunSpec.from_json(fields) for fields in job.loads]
    emit({"event": "stage", "name": "check"})
    inputs = prepare(specs[0])
    expect = _expected(specs[0], inputs)
    stream = batch_stream(inputs.task.train, specs[0].batch_size, specs[0].seed)
    batches = [list(islice(stream, SETTLING + job.steps)) for _ in range(job.rounds)]
    try:
        for spec in specs:
            loaded.append(_load(spec, emit))
        for number, point in enumerate(job.points):
            _check(loaded[point[0]], expect, point, number, emit)
        for index in range(job.first_round, job.rounds):
            order = list(enumerate(job.points))
            for number, point in order if index % 2 == 0 else reversed(order):
                _block(loaded[point[0]], point, number, index, batches[index], emit)
            emit({"event": "stage", "name": "timed"})
        for number, point in enumerate(job.points if job.profile else []):
            _profile(loaded[point[0]], point, number, batches[0][-1], emit)
        emit({"event": "done"})
    finally:
        for one in loaded:
            one.executor.close()


def _load(spec: RunSpec, emit: Emit) -> Loaded:
    emit({"event": "stage", "name": "load"})
    inputs = prepare(spec)
    emit({"event": "data", "digest": inputs.task.digest, **{k: v for k, v in inputs.task.summary.items() if k != "warnings"}})
    executor: Executor = resolve(EXECUTORS, "--executor", spec.executor)()
    executor.load(spec, inputs.source, inputs.task)
    return Loaded(inputs, executor, count())


def _use(one: Loaded, point: PlannedPoint) -> RunSpec:
    spec = RunSpec.from_json(point[1])
    if hasattr(one.executor, "switch"):
        one.executor.switch(batching=spec.batching, kv=spec.kv, lora=spec.lora, loop=spec.loop, variant=point[2])
    return spec


def _expected(spec: RunSpec, inputs: Inputs) -> gate.Expected:
    batch = inputs.task.train[: spec.batch_size]
    return gate.expected(inputs.reference, batch, make_workload(spec).plan(0), spec.dtype, spec.device)


def _check(one: Loaded, expect: gate.Expected, point: PlannedPoint, number: int, emit: Emit) -> None:
    """Before anything has moved: the point's losses on one batch are the reference's, or the whole run stops."""
    spec = _use(one, point)
    check, _ = gate.check(one.executor, expect)
    emit({"event": "point", "point": number, "checks": [asdict(check)], "details": one.executor.details()})
    if not check.passed:
        raise RuntimeError(f"{spec.executor} {spec.batching} {spec.kv} {spec.lora}: wrong losses, {check.detail}")


def _block(one: Loaded, point: PlannedPoint, number: int, index: int, batches: Sequence[Batch], emit: Emit) -> None:
    workload = make_workload(_use(one, point))
    for batch in batches[:SETTLING]:
        core_step(one.executor, workload, next(one.numbers), batch)
    one.inputs.clock.synchronize()
    numbers = [next(one.numbers) for _ in batches[SETTLING:]]
    done = list(run_steps(one.executor, workload, numbers, iter(batches[SETTLING:]), one.inputs.clock))
    times, losses = [step.step_s for step in done], [step.losses for step in done]
    emit({"event": "block", "point": number, "round": index, "step_s": times, "losses": losses})


def _profile(one: Loaded, point: PlannedPoint, number: int, batch: Batch, emit: Emit) -> None:
    import torch

    from bench.harness.context import ProfileContext
    from bench.recorders import observe

    emit({"event": "stage", "name": "profile"})
    spec, inputs = _use(one, point), one.inputs
    workload = make_workload(spec)
    start = inputs.clock.mark()
    core_step(one.executor, workload, next(one.numbers), batch)
    step_s = inputs.clock.seconds(start, inputs.clock.mark())
    probes, device = workload.plan(0), torch.device(spec.device)
    context = ProfileContext(one.executor, spec, inputs.source, inputs.task, batch, probes, step_s, device, PROFILED_STEPS)
    names = ("counters", "time_breakdown", "launches", "memory")
    findings, _ = observe(context, names, lambda _: core_step(one.executor, workload, next(one.numbers), batch), None)
    emit({"event": "point_findings", "point": number, "findings": findings})


if __name__ == "__main__":
    from bench.harness.session import serve

    sys.exit(serve(int(sys.argv[1]), lambda job, emit: run_blocks(BlocksJob(**job), emit)))
