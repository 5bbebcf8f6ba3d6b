"""Heats: many short runs of one algorithm in one process, the executor loaded once and put back to its start before each.

A run here is what a session is elsewhere, event by event: its own journal, its own result, resumable. Only loading is shared,
which takes longer than a short run itself. `python -m bench.harness.heats FD` reads its job from stdin and reports every event of
a run as `{"event": "heat", "heat": number, "of": event}`.
"""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bench.api import Executor, Inputs, Snapshot
from bench.config import RunSpec
from bench.errors import UsageError
from bench.harness.child import classify, serve
from bench.harness.gate import Expected
from bench.harness.inputs import prepare
from bench.harness.session import Job, expected, go, tell
from bench.harness.stages import timed_stages
from bench.journal.events import Emit, Event
from bench.registry import make_executor


@dataclass(frozen=True)
class HeatsJob:
    """runs: a session's job each; they differ in seed, learning rate, eps and steps alone."""

    module: ClassVar[str] = "bench.harness.heats"

    runs: list[dict[str, Any]] = field(default_factory=list)
    index: int = 0


def run_heats(job: HeatsJob, emit: Emit) -> None:
    """Every run in turn; one that diverges or fails is reported and the next goes on. Bad input ends all."""
    jobs = [Job(**fields) for fields in job.runs]
    specs = [RunSpec.from_json(one.spec) for one in jobs]
    inputs = prepare(specs[0])
    states = {(spec.seed, spec.eps): spec for spec in specs}  # the reference first, while the device is empty, and once for each
    expects = {state: expected(spec, inputs) for state, spec in states.items()}
    executor = make_executor(specs[0].executor)
    try:
        executor.load(specs[0], inputs.source, inputs.task)
        inputs.clock.synchronize()
        start = executor.snapshot()
        for number, (one, spec) in enumerate(zip(jobs, specs, strict=True)):

            def report(event: Event, number: int = number) -> None:
                emit({"event": "heat", "heat": number, "of": event})

            try:
                _heat(one, spec, expects[spec.seed, spec.eps], inputs, executor, start, report)
            except UsageError:
                raise
            except Exception as error:
                traceback.print_exc()
                status, text = classify(error)
                outside = {"outside": True} if isinstance(error, OSError) or status == "out_of_memory" else {}
                report({"event": "error", "status": status, "text": text} | outside)
        emit({"event": "done"})
    finally:
        executor.close()


def _heat(job: Job, spec: RunSpec, expect: Expected, inputs: Inputs, executor: Executor, start: Snapshot, report: Emit) -> None:
    emit, history = timed_stages(report), job.history()
    emit({"event": "stage", "name": "load"})
    tell(job, spec, history, inputs, emit)
    began = time.perf_counter()
    executor.switch(spec)
    executor.restore(start)
    inputs.clock.synchronize()
    go(job, spec, history, inputs, executor, expect, emit, time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[1]), lambda job, emit: run_heats(HeatsJob(**job), emit)))
