"""Blocks: several points in one process, each engine loaded once, interleaved so that a drift of the machine weighs on all alike.

A block is a stretch of timed steps of one point; rounds go through the points forwards and backwards in turn (serpentine), and
all points of a round are given the same batches. Where updates are folded once in an interval of V, a block begins with one and
ends with the fold after it, so that plain steps and folds are measured apart, however long the interval is.
`python -m bench.harness.blocks FD` reads its job from stdin and reports events as a session does, and besides
    point            point, checks
    point_failed     point, status, error; the run goes on without it
    block            point, round, step_s, kinds, fold_every, losses, details
    point_findings   point, findings
    point_warning    point, text
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, islice
from statistics import median
from typing import Any, ClassVar

from bench.api import Executor, Inputs
from bench.config import RunSpec
from bench.data import Batch
from bench.errors import UsageError
from bench.harness import gate
from bench.harness.child import classify, serve
from bench.harness.inputs import batches_of, described, prepare
from bench.harness.steps import Step, fold_every, run_steps, size_of_forward
from bench.journal.events import Emit
from bench.registry import make_executor, make_workload
from workloads.steps import rounds

SETTLING = 2
"""Steps of a point before its block is timed: the switch, and V into the slots."""
PROFILED_STEPS = 3
PlannedPoint = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class BlocksJob:
    """loads: the spec each executor is loaded with, largest first; points: (index into loads, spec of the point);
    done: rounds each point already has."""

    module: ClassVar[str] = "bench.harness.blocks"

    loads: list[dict[str, Any]]
    points: list[PlannedPoint]
    rounds: int
    steps: int
    done: list[int] = field(default_factory=list)
    profile: bool = True
    index: int = 0


@dataclass
class LoadedExecutor:
    """An executor with where its run stands; the points on it share one trajectory. at: its next step; warnings: of its data."""

    inputs: Inputs
    executor: Executor
    warnings: Sequence[str] = ()
    at: int = 0

    def steps(self, count: int) -> range:
        """The next steps."""
        self.at += count
        return range(self.at - count, self.at)

    def skip_to_interval(self, every: int) -> None:
        """Go on at the first step of a new interval of V."""
        self.at = -(-self.at // every) * every

    def use(self, point: PlannedPoint) -> RunSpec:
        """Switch to a point."""
        spec = RunSpec.from_json(point[1])
        self.executor.switch(spec)
        return spec


def run_blocks(job: BlocksJob, emit: Emit) -> None:
    """Load everything, check every point against the reference, then the rounds, then a profiled pass of each point.

    The reference is computed first, while the device is empty.
    """
    from workloads.tasks.batches import typical

    specs = [RunSpec.from_json(fields) for fields in job.loads]
    first = specs[0]
    emit({"event": "stage", "name": "check"})
    inputs = prepare(first)
    batch, probes = next(batches_of(first, inputs)), make_workload(first).plan(0)
    expect = gate.expected(inputs.reference, batch, probes, first.precision, first.device)
    stream = batches_of(first, inputs)
    batches = [list(islice(stream, SETTLING + job.steps + 1)) for _ in range(job.rounds)]
    loaded: list[LoadedExecutor] = []
    try:
        for spec in specs:
            emit({"event": "stage", "name": "load"})
            loaded.append(_load(spec, emit, batch))
        points = Points(job, loaded, emit, list(range(len(job.points))))
        points.each(lambda number: points.check(number, expect))
        for index, given in enumerate(batches):
            emit({"event": "stage", "name": "timed"})
            points.each(partial(points.block, index=index, batches=given), backwards=index % 2 == 1)
        if job.profile:
            emit({"event": "stage", "name": "profile"})
            middle = typical(chain.from_iterable(batches))
            points.each(lambda number: points.profile(number, middle))
        emit({"event": "done"})
    finally:
        for one in loaded:
            one.executor.close()


def _load(spec: RunSpec, emit: Emit, batch: Batch) -> LoadedExecutor:
    inputs = prepare(spec)
    data, warnings = described(inputs)
    emit(data)
    executor, started = make_executor(spec.executor), time.perf_counter()
    executor.load(spec, inputs.source, inputs.task)
    size = size_of_forward(executor, make_workload(spec), batch)
    emit({"event": "loaded", "executor": spec.executor, "load_s": time.perf_counter() - started, **size})
    return LoadedExecutor(inputs, executor, warnings)


@dataclass
class Points:
    """What is done with each point. live: those still to be gone on with; timed: seconds of every step of a point here."""

    job: BlocksJob
    loaded: list[LoadedExecutor]
    emit: Emit
    live: list[int]
    timed: dict[int, list[float]] = field(default_factory=dict)

    def each(self, work: Callable[[int], None], *, backwards: bool = False) -> None:
        """A point whose losses are wrong, that needs more memory than there is, or that fails is left out from then on."""
        order: Iterable[int] = reversed(self.live) if backwards else self.live
        for number in list(order):
            try:
                work(number)
            except UsageError:
                raise
            except Exception as error:
                status, text = ("incorrect", str(error)) if isinstance(error, WrongLosses) else classify(error)
                traceback.print_exc()
                self.live.remove(number)
                self.emit({"event": "point_failed", "point": number, "status": status, "error": text})

    def check(self, number: int, expect: gate.Expected) -> None:
        """Before anything has moved: are the point's losses on one batch the reference's?"""
        one, point = self._at(number)
        one.use(point)
        check, blunt = gate.check(one.executor, expect)
        self.emit({"event": "point", "point": number, "checks": [asdict(check)]})
        self.warn(number, *one.warnings, *([blunt] if blunt else ()))
        if not check.passed:
            raise WrongLosses(f"check {check.name}: {check.detail}, allowed difference {check.tolerance:.1e}")

    def block(self, number: int, index: int, batches: Sequence[Batch]) -> None:
        if number < len(self.job.done) and index < self.job.done[number]:
            return
        steps, every = self._time(number, batches)
        self.timed.setdefault(number, []).extend(step.step_s for step in steps)
        details = self._at(number)[0].executor.details()
        self.warn(number, *details.pop("warnings", ()))
        facts = {"point": number, "round": index, "fold_every": every, "details": details}
        seen = {"step_s": [s.step_s for s in steps], "kinds": [s.kind for s in steps], "losses": [s.losses for s in steps]}
        self.emit({"event": "block", **seen, **facts})

    def profile(self, number: int, batch: Batch) -> None:
        import torch

        from bench.recorders import beside_blocks, observe
        from bench.recorders.context import ProfileContext

        if number not in self.timed:  # its blocks were timed by an earlier process
            steps, _ = self._time(number, [batch] * (SETTLING + PROFILED_STEPS + 1))
            self.timed[number] = [step.step_s for step in steps]
        one, point = self._at(number)
        spec, inputs = one.use(point), one.inputs
        workload = make_workload(spec)
        every, device, step_s = rounds(workload), torch.device(spec.device), median(self.timed[number])
        beside = sum(sum(other.executor.memory_parts().values()) for other in self.loaded if other is not one)
        context = ProfileContext(
            one.executor, spec, inputs.source, inputs.task, batch, every, step_s, device, PROFILED_STEPS, beside
        )
        findings, warnings = observe(
            context, beside_blocks(), lambda _: one.executor.step(workload, one.steps(1)[0], batch), None
        )
        self.emit({"event": "point_findings", "point": number, "findings": findings})
        self.warn(number, *warnings)

    def warn(self, number: int, *texts: str) -> None:
        """What `run` would warn of, of a point."""
        for text in texts:
            self.emit({"event": "point_warning", "point": number, "text": text})

    def _time(self, number: int, batches: Sequence[Batch]) -> tuple[list[Step], int | None]:
        """The steps that count, those that settle left out, and how often they fold. The last batch is for the fold."""
        one, point = self._at(number)
        workload, clock = make_workload(one.use(point)), one.inputs.clock
        every = fold_every(one.executor, workload, batches[0])
        apart = every is not None and every > 1
        if every is not None and apart:
            one.skip_to_interval(every)
        for step, batch in zip(one.steps(SETTLING), batches, strict=False):
            one.executor.step(workload, step, batch)
        clock.synchronize()
        *rest, last = batches[SETTLING:]
        timed = partial(run_steps, one.executor, workload, clock=clock, folds=every is not None, paused=False)
        done = list(timed(one.steps(len(rest)), iter(rest)))
        if every is not None and apart:
            one.skip_to_interval(every)
            done += timed(one.steps(1), iter([last]))
        return done, every

    def _at(self, number: int) -> tuple[LoadedExecutor, PlannedPoint]:
        point = self.job.points[number]
        return self.loaded[point[0]], point


class WrongLosses(Exception):
    """A point's losses are not the reference's."""


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[1]), lambda job, emit: run_blocks(BlocksJob(**job), emit)))
