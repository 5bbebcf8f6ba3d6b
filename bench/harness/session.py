"""A session: one fresh process that loads, checks, warms up, times, evaluates, and at the very end profiles.

`python -m bench.harness.session FD` reads its job as one JSON line from stdin and reports events as JSON lines on descriptor FD.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import chain, islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from bench.api import Executor, Inputs, Workload
from bench.config import RunSpec
from bench.data import Batch
from bench.environment import gpu_clocks
from bench.harness import gate
from bench.harness.child import describe, serve
from bench.harness.inputs import batches_of, described, prepare, refuse_others
from bench.harness.schedule import Duty, schedule
from bench.harness.stages import timed_stages
from bench.harness.steps import Diverged, Step, fold_every, run_steps, size_of_forward
from bench.harness.unmoved import Watch
from bench.journal.entries import History
from bench.journal.events import Emit
from bench.journal.file import read_journal
from bench.journal.keeper import Keeper
from bench.registry import make_executor, make_workload
from bench.result import Evaluation, Reached
from bench.until import Until
from workloads.steps import rounds

PROFILED_STEPS = 5
SAMPLED_BATCHES = 500
"""How many batches are looked at for a typical one to profile."""


@dataclass(frozen=True)
class Job:
    """What one session is to do. journal: where its snapshots go, and on `resume` what it goes on from; recorded: digests of
    the model and the data that the run's earlier sessions had."""

    module: ClassVar[str] = "bench.harness.session"

    spec: dict[str, Any]
    index: int = 0
    profile: bool = True
    record: tuple[str, ...] = ()
    trace: str | None = None
    journal: str | None = None
    resume: bool = False
    recorded: dict[str, Any] = field(default_factory=dict)

    def history(self) -> History:
        """What an earlier process saw of this session."""
        return read_journal(self.journal).sessions.get(self.index, History()) if self.resume and self.journal else History()


def run_session(job: Job, emit: Emit) -> None:
    """All stages in order; raises what went wrong. An executor whose losses are wrong is not timed."""
    spec, history, emit = RunSpec.from_json(job.spec), job.history(), timed_stages(emit)
    emit({"event": "stage", "name": "load"})
    inputs = prepare(spec, job.index)
    tell(job, spec, history, inputs, emit)
    emit({"event": "stage", "name": "check"})
    expect = expected(spec, inputs)
    emit({"event": "stage", "name": "load"})
    executor = make_executor(spec.executor, replicated=spec.replicas is not None)
    try:
        started = time.perf_counter()
        executor.load(spec, inputs.source, inputs.task)
        inputs.clock.synchronize()
        go(job, spec, history, inputs, executor, expect, emit, time.perf_counter() - started)
    finally:
        executor.close()


def tell(job: Job, spec: RunSpec, history: History, inputs: Inputs, emit: Emit) -> None:
    """Report what the session has found; UsageError when it is not what the run began with."""
    refuse_others(inputs, job.recorded | history.data, spec)
    data, warnings = described(inputs)
    emit(data | {"trains": inputs.trains})
    for text in warnings:
        emit({"event": "warning", "text": text})


def expected(spec: RunSpec, inputs: Inputs) -> gate.Expected:
    """What the first batch should score, by the reference."""
    plan = make_workload(spec).plan(0)
    return gate.expected(inputs.reference, next(batches_of(spec, inputs)), plan, spec.precision, spec.device)


def go(
    job: Job,
    spec: RunSpec,
    history: History,
    inputs: Inputs,
    executor: Executor,
    expect: gate.Expected,
    emit: Emit,
    load_s: float,
) -> None:
    """What a session does with a loaded executor: check, steps, evaluations, profile. load_s: seconds that loading took."""
    workload, stream = make_workload(spec), batches_of(spec, inputs)
    first = next(stream)
    facts = {"fold_every": fold_every(executor, workload, first), **size_of_forward(executor, workload, first)}
    emit({"event": "loaded", "load_s": load_s, **facts})
    emit({"event": "stage", "name": "check"})
    with gate.by_losses(executor, spec):
        check, warning = gate.check(executor, expect)
    emit({"event": "check", **asdict(check)})
    if warning:
        emit({"event": "warning", "text": warning})
    if check.passed:
        keeper = Keeper(executor, workload, history, emit, Path(job.journal) if job.journal else None, job.index)
        keeper.rebuild()
        Training(spec, job, inputs, executor, workload, emit, keeper).run(first, stream)
    torch = sys.modules.get("torch")
    threads = {"threads": torch.get_num_threads()} if torch else {}
    details = executor.details()
    for text in details.pop("warnings", ()):
        emit({"event": "warning", "text": text})
    emit({"event": "details", **threads, **details})
    emit({"event": "done"})
    if check.passed:
        keeper.finish()


@dataclass
class Training:
    """The steps of a session and what is done between them."""

    spec: RunSpec
    job: Job
    inputs: Inputs
    executor: Executor
    workload: Workload
    emit: Emit
    keeper: Keeper

    def run(self, first: Batch, stream: Iterable[Batch]) -> None:
        """Warm-up steps count: the trajectory starts at step 0 and timed steps go on where they end."""
        from workloads.tasks.batches import typical

        spec, clock, history = self.spec, self.inputs.clock, self.keeper.history
        total, done = spec.warmup + spec.steps, len(history.steps)
        feed, folds = islice(chain([first], stream), done, None), fold_every(self.executor, self.workload, first) is not None
        timed = [step.step_s for step in history.steps if not step.warmup]
        clocks, watch = list[Any](), Watch(spec.dtype)
        scored = sum(len(step.losses) for step in history.steps) * spec.accumulate
        self.spent = Reached(done, sum(step.step_s for step in history.steps), scored)
        plan = dict(schedule(spec))
        self.attend(done, plan.get(done, ("checksum",)))
        for start, stop in pairwise([done, *(step for step in plan if step > done)]):
            if self.arrived():
                total = start
                self.attend(start, plan[max(plan)])
                break
            self.stage("timed" if start >= spec.warmup else "warmup")
            clock.synchronize()
            for step in run_steps(self.executor, self.workload, range(start, stop), feed, clock, folds=folds):
                self.report(step)
                if spec.reward is None:  # answers may be alike under all probes of a step
                    watch(step.step, step.losses)
                forwards = self.spent.forwards + len(step.losses) * spec.accumulate
                self.spent = Reached(step.step + 1, self.spent.seconds + step.step_s, forwards)
                if step.step < spec.warmup:
                    continue
                timed.append(step.step_s)
                if spec.device == "cuda" and len(timed) in (1, spec.steps):
                    clocks.append(gpu_clocks())
            clock.synchronize()
            self.attend(stop, plan[stop])
        if self.arrived():
            self.emit({"event": "reached", **asdict(self.spent)})
        if clocks:
            self.emit({"event": "details", "clocks": clocks})
        if self.job.profile and self.inputs.profiled and spec.watched:
            self.profile(typical(islice(batches_of(spec, self.inputs), min(total, SAMPLED_BATCHES))), total, median(timed))

    def arrived(self) -> bool:
        """Whether the newest look at the dev split, which has to be at the present step, meets the target."""
        dev = [found for found in self.keeper.history.evaluations if found.split == "dev"]
        if self.spec.until is None or not dev or dev[-1].step != self.spent.step:
            return False
        return Until.parse(self.spec.until).reached(dev[-1].accuracy, dev[-1].loss)

    def attend(self, step: int, duties: Iterable[Duty]) -> None:
        """Do what is due in the state before this step and was not done before the run was interrupted."""
        keeper = self.keeper
        for duty in duties:
            match duty:
                case "checksum":
                    self.stage("checksum")
                    keeper.checksum(step)
                case "checkpoint":
                    self.stage("checkpoint")
                    keeper.snapshot(step, "checkpoint")
                case "dev":
                    self.evaluate(step, "dev")
                    if keeper.best == step and not self.spec.tuning:
                        self.stage("checkpoint")
                        keeper.snapshot(step, "best")
                case "eval":
                    self.evaluate(step, "eval")
                case "best":
                    if keeper.best not in (None, step) and keeper.restore_best():
                        self.evaluate(keeper.best, "best")

    def report(self, step: Step) -> None:
        direction, rate = self.workload.plan(step.step)[0].direction, self.workload.rate(step.step)
        replayable = {"seed": self.executor.seed(step.step), "epoch": direction.epoch, "learning_rate": rate}
        self.emit({"event": "step", "warmup": step.step < self.spec.warmup, **asdict(step), **replayable})

    def stage(self, name: str) -> None:
        self.emit({"event": "stage", "name": name})

    def evaluate(self, step: int, split: str) -> None:
        """The task's score with its standard error, and the loss, of the state before this step; best: the held-out set again."""
        if self.keeper.evaluated(step, split):
            return
        from workloads.tasks.judge import judge

        self.stage("evaluate")
        task = self.inputs.task
        examples = task.dev if split == "dev" else task.eval
        answers = self.executor.generate(examples) if task.answer_tokens else None
        bare = self.executor.evaluate(task.calibration) if task.calibration and split != "dev" else None
        logprobs = self.executor.evaluate(examples) if task.reward is None else None
        found = judge(task, examples, logprobs, answers, bare)
        if not math.isfinite(found.loss):
            raise Diverged(
                f"step {step}: the loss on {split} is {found.loss}; lower --learning-rate or --eps, or use a wider --dtype"
            )
        every = {str(name): value for name, value in found.scores.items()} if answers is not None else {}
        counted = (step, found.score, found.error, found.loss, len(examples))
        self.keeper.evaluation(Evaluation(*counted, split=split, metric=task.metric, scores=every))

    def profile(self, batch: Batch, start: int, timed_step_s: float) -> None:
        """Steps of their own under the recorders. A recorder that breaks costs its findings, not the timings already made."""
        import torch

        from bench.recorders import observe
        from bench.recorders.context import ProfileContext

        self.stage("profile")
        spec, inputs = self.spec, self.inputs
        device = torch.device(spec.device)
        every = rounds(self.workload, start)
        context = ProfileContext(
            self.executor, spec, inputs.source, inputs.task, batch, every, timed_step_s, device, PROFILED_STEPS
        )

        def run_step(index: int) -> object:
            return self.executor.step(self.workload, start + index, batch)

        try:
            findings, warnings = observe(context, self.job.record, run_step, Path(self.job.trace) if self.job.trace else None)
        except Exception as error:  # whatever a profiler throws at this point, the session's timings stand
            traceback.print_exc()
            findings, warnings = {}, [f"no findings of the profiled pass: {describe(error)}"]
        self.emit({"event": "findings", **findings})
        for text in warnings:
            self.emit({"event": "warning", "text": text})


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[1]), lambda job, emit: run_session(Job(**job), emit)))
