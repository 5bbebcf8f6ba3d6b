"""Runs of one session each, many in a process: those that earlier calls finished are read, those cut short are gone on with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from bench.commands.resume import reopen
from bench.config import RunOptions, RunSpec
from bench.environment import environment
from bench.errors import UsageError
from bench.harness.conduct import RunInProgress, describe, start
from bench.harness.heats import HeatsJob
from bench.harness.inputs import DIGESTS
from bench.harness.process import Stop, run_process
from bench.harness.session import Job
from bench.harness.telling import Teller
from bench.journal.events import Event, SessionLog
from bench.journal.file import SUFFIX, JournalWriter, read_head
from bench.journal.store import Store
from bench.registry import executor_entry, workload_class
from bench.result import Result, read_results
from workloads.models.adapter import SCOPE

FINAL = ("passed", "diverged")
"""Statuses of a run that would come out the same again."""
SAME = ("device", "torch", "vllm", "threads")
"""Of the environment: a run on another machine is no part of this race."""


@dataclass
class Runner:
    """Where the runs of a race are kept and told of. record: recorders of the first run of each call to `results`."""

    store: Store
    console: Console
    stop: Stop
    timeout_s: float
    tell: Teller = field(init=False)

    def __post_init__(self) -> None:
        self.tell = Teller(self.console)

    def results(self, specs: Sequence[RunSpec], record: Sequence[str] = ()) -> list[Result | None]:
        """One result for each spec of one workload, None where a signal came first. record: what watches the first of them."""
        held = self._held(specs)
        missing = [spec for spec in specs if _key(spec) not in held]
        if missing and self.stop.signal is None:
            runs = self._opened(missing)
            try:
                self._run(runs, {_key(specs[0]): tuple(record)} if record else {})
            finally:
                for run in runs:
                    run.journal.close()
                    if not (run.result.sessions or run.logs):  # nothing of it has begun
                        run.journal.path.unlink(missing_ok=True)
            held |= {_key(run.spec): run.result for run in runs if run.result.sessions and not run.cut_short}
        return [held.get(_key(spec)) for spec in specs]

    def _held(self, specs: Sequence[RunSpec]) -> dict[str, Result]:
        """Finished runs of these specs on this machine."""
        wanted, here, version = {_key(spec) for spec in specs}, _place(specs[0]), workload_class(specs[0].workload).version
        found = {}
        for _, result in read_results([self.store.local], lambda text: None):  # what cannot be read is run again
            key = _key(RunSpec.from_json(result.spec))
            same = key in wanted and result.workload_version == version and _known(result.environment) == here
            if same and result.status in FINAL and len(result.sessions) == 1:
                found[key] = result
        return found

    def _opened(self, specs: Sequence[RunSpec]) -> list[RunInProgress]:
        """A run for each spec: one that was cut short, from its journal, or a new one."""
        wanted, found = {_key(spec): spec for spec in specs}, dict[str, RunInProgress]()
        for path in sorted(self.store.local.glob(f"*{SUFFIX}")):
            head = read_head(path)
            key = _key(head.spec) if head else ""
            if head is None or key not in wanted or key in found or _known(head.result.environment) != _place(head.spec):
                continue
            if head.result.workload_version != workload_class(head.spec.workload).version:
                continue
            with suppress(UsageError):  # damaged, or another process is at it: a new run does not mind
                writer = JournalWriter(path, new=False)
                run = reopen(writer.read(), wanted[key], writer, self.store)
                if run.result.sessions:  # it came to its end; its result file was lost and is written again
                    writer.close()
                found[key] = run
        options = RunOptions(1, self.timeout_s, results=str(self.store.local.parent))
        return [found.get(_key(spec)) or start([spec], options, self.store)[0] for spec in specs]

    def _run(self, runs: Sequence[RunInProgress], record: dict[str, tuple[str, ...]]) -> None:
        left = [run for run in runs if not run.result.sessions]
        at_once = len(left) if left and rewinds(left[0].spec) else 1
        while left and self.stop.signal is None:
            Heats(left[:at_once], self, record).run()
            left = [run for run in left if not run.result.sessions]


@dataclass
class Heats:
    """One process and the runs in it. ended: how many of them it has brought to an end."""

    runs: Sequence[RunInProgress]
    runner: Runner
    record: dict[str, tuple[str, ...]]
    ended: int = 0

    def run(self) -> None:
        self.logs = [run.logs.get(0) or SessionLog(0) for run in self.runs]
        self.began = time.monotonic()
        runner, first = self.runner, self.runs[0]
        where, timeout = runner.store.local / f"{first.stem}.log", runner.timeout_s * len(self.runs)
        job = HeatsJob([asdict(self._job(run)) for run in self.runs])
        whole = run_process(job, timeout_s=timeout, log_path=where, stop=runner.stop, on_event=self.note)
        if whole.usage_error:
            raise UsageError(whole.usage_error)
        error = whole.result().error
        if error and self.ended < len(self.runs):
            self._broken(whole, error)
        if all(run.result.status in FINAL for run in self.runs):
            where.unlink(missing_ok=True)

    def note(self, event: Event) -> None:
        """Take in an event of one of the runs."""
        if event["event"] != "heat":
            return
        run, log, inner = self.runs[event["heat"]], self.logs[event["heat"]], event["of"]
        run.logs[0] = log
        if inner["event"] != "stage":
            run.journal.event(0, inner)
        log.add(inner)
        self.runner.tell(f"{run.spec.workload} {run.spec.executor}", inner)
        if log.finished or log.failed:
            self._end(run, log)

    def _end(self, run: RunInProgress, log: SessionLog) -> None:
        if run.result.sessions:
            return
        now = time.monotonic()
        ended: Event = {"event": "ended", "wall_s": now - self.began}
        self.began = now
        run.journal.event(0, ended)
        log.add(ended)
        session = log.result()
        run.add(session, log.data)
        run.cut_short = log.resumable
        run.path = self.runner.store.write(run.result)
        run.journal.close()
        self.ended += 1
        self.runner.console.print(f"{name(run.spec)}: {describe(session)}", soft_wrap=True)

    def _broken(self, whole: SessionLog, error: str) -> None:
        """The process ended before its runs did: the run it was at is over; where none had begun, all are."""
        open_ = [(run, log) for run, log in zip(self.runs, self.logs, strict=True) if not run.result.sessions]
        begun = [(run, log) for run, log in open_ if run.logs.get(0) is log and log.stage != "start"]
        status = whole.result().status
        for run, log in begun[:1] or ([] if self.runner.stop.signal else open_):
            log.fail(status, error.replace(f"at {whole.where}", f"at {log.where}"))
            log.resumable = whole.resumable or self.runner.stop.signal is not None
            run.logs[0] = log
            self._end(run, log)

    def _job(self, run: RunInProgress) -> Job:
        record = self.record.get(_key(run.spec), ())
        recorded = {name: run.result.data[name] for name in DIGESTS if name in run.result.data}
        return Job(run.spec.to_json(), 0, bool(record), record, None, str(run.journal.path), 0 in run.logs, recorded)


def rewinds(spec: RunSpec) -> bool:
    """Whether its executor can be put back to the start of a run with another seed: where an adapter begins depends on it."""
    return executor_entry(spec.executor).capabilities.rewinds and spec.scope != SCOPE


def name(spec: RunSpec) -> str:
    """A run of a race in a line for people."""
    what = "tuning" if spec.tuning else f"seed {spec.seed}"
    return f"{spec.workload}, {what}, learning rate {spec.learning_rate:g}, eps {spec.eps:g}"


def _key(spec: RunSpec) -> str:
    return repr(sorted(spec.to_json().items()))


def _known(found: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(found.get(name) for name in SAME)


def _place(spec: RunSpec) -> tuple[Any, ...]:
    return _known(environment(spec.device))
