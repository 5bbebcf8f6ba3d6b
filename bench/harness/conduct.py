"""What the verbs that run sessions share: a growing result, the order of the sessions, and one session from start to file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.config import RunOptions, RunSpec
from bench.environment import environment, source
from bench.errors import UsageError, command
from bench.harness import tracking
from bench.harness.inputs import DIGESTS
from bench.harness.process import Stop, run_process, stoppable
from bench.harness.progress import session_bar
from bench.harness.session import Job
from bench.harness.telling import Teller
from bench.journal.events import Event, SessionLog
from bench.journal.file import SUFFIX, JournalWriter, header_entry
from bench.journal.store import Store, new_id, stem, utc_now
from bench.registry import workload_class
from bench.result import Result, SessionResult
from bench.steptimes import step_times


@dataclass
class RunInProgress:
    """A result that grows, and the files beside it. logs: sessions that an earlier process began or finished; cut_short: its
    last session failed of something that need not come again; among: what tells it from the runs beside it, in words."""

    result: Result
    spec: RunSpec
    stem: str
    journal: JournalWriter
    path: Path | None = None
    logs: dict[int, SessionLog] = field(default_factory=dict)
    cut_short: bool = False
    among: str = ""

    @property
    def name(self) -> str:
        return " ".join((self.spec.workload, self.spec.executor, short_name(self.spec.model))) + self.among

    @property
    def going(self) -> bool:
        """Whether more sessions are worth starting: one that failed would fail again."""
        return self.result.status == "passed"

    def resumable(self, sessions: int) -> bool:
        """Whether going on may get further: sessions are missing, or the last was cut short; what fails by itself fails again."""
        return self.cut_short or (self.going and len(self.result.sessions) < sessions)

    def add(self, session: SessionResult, data: dict[str, Any]) -> None:
        status = self.result.status if self.result.status != "passed" else session.status
        self.result = replace(
            self.result, status=status, data=data or self.result.data, sessions=[*self.result.sessions, session]
        )


Watch = Callable[[Event], bool]
"""Is given every event of a session, and says whether to end it; it may be gone on with."""


def conduct(
    runs: Sequence[RunInProgress],
    options: RunOptions,
    store: Store,
    console: Console,
    *,
    quiet: bool = False,
    tables: bool = True,
    watch: Watch | None = None,
) -> int:
    """All sessions that are still to be done, then a table and the summary (its JSON line not when `quiet`). Returns the exit
    code."""
    tell = Teller(console)
    try:
        tracking.check(options.log_to)
        with stoppable() as stop:
            for run, index in schedule(runs, options.sessions):
                if stop.signal is None and run.going and len(run.result.sessions) == index:
                    one_session(run, index, options, store, stop, console, tell, watch)
    except UsageError:
        for run in runs:
            if not (run.result.sessions or run.logs):  # nothing of it has begun
                run.journal.path.unlink()
        raise
    finally:
        for run in runs:
            run.journal.close()
            if run.going or not run.result.sessions:
                (store.local / f"{run.stem}.log").unlink(missing_ok=True)
    if tables:
        print_table(console, runs)
    for run in runs if tables else ():
        if run.resumable(options.sessions):
            where = () if options.results == RunOptions.results else ("--results", options.results)
            console.print(f"go on with: {command('run', '--resume', run.result.id, *where)}", soft_wrap=True)
    if not quiet:
        print(json.dumps(summary(runs), separators=(",", ":")))
    return 0 if all(run.going and len(run.result.sessions) >= options.sessions for run in runs) else 1


def start(specs: Sequence[RunSpec], options: RunOptions, store: Store, pair_id: str | None = None) -> list[RunInProgress]:
    """Empty results and journals; several runs share a pair id."""
    pair_id = pair_id or (new_id() if len(specs) > 1 else None)
    created, origin = utc_now(), source()
    runs = []
    for spec in specs:
        version = workload_class(spec.workload).version
        identifier = new_id()
        result = Result(identifier, created, "passed", spec.to_json(), version, environment(spec.device), origin, pair_id=pair_id)
        name = stem(created, spec, identifier)
        journal = JournalWriter(store.local / (name + SUFFIX))
        journal.write(header_entry(result, options))
        runs.append(RunInProgress(result, spec, name, journal))
    return runs


def schedule(runs: Sequence[RunInProgress], sessions: int) -> Iterator[tuple[RunInProgress, int]]:
    """Interleaved, every other round backwards: a slow drift of the machine then weighs on all alike."""
    for index in range(sessions):
        for run in runs if index % 2 == 0 else reversed(runs):
            yield run, index


def one_session(
    run: RunInProgress,
    index: int,
    options: RunOptions,
    store: Store,
    stop: Stop,
    console: Console,
    tell: Teller,
    watch: Watch | None = None,
) -> None:
    """Run a session, add it to its result, write the file. UsageError when the session found the input bad."""
    spec, name = run.spec, run.name
    title = f"{name} {index + 1}/{options.sessions}"
    trace = None
    if options.trace:
        folder = store.local.parent / "traces"
        folder.mkdir(exist_ok=True)
        trace = str(folder / f"{run.stem}_{index}.json.gz")
    begun = run.logs.get(index)
    journal, recorded = str(run.journal.path), {name: run.result.data[name] for name in DIGESTS if name in run.result.data}
    job = Job(spec.to_json(), index, options.profile, options.record, trace, journal, begun is not None, recorded)
    with session_bar(console, title, spec.warmup + spec.steps) as bar:

        def note(event: Event) -> None:
            if event["event"] != "stage":
                run.journal.event(index, event)
            tell(name, event)
            bar(event)
            if watch is not None and watch(event) and stop.signal is None:
                stop.signal = "whoever watched it"

        where, began = store.local / f"{run.stem}.log", time.monotonic()
        log = run_process(job, timeout_s=options.timeout_s, log_path=where, stop=stop, on_event=note, log=begun)
    if log.usage_error:
        raise UsageError(log.usage_error)
    ended: Event = {"event": "ended", "wall_s": time.monotonic() - began}
    run.journal.event(index, ended)  # or a result made again from the journal would lack it
    log.add(ended)
    session = log.result()
    run.add(session, log.data)
    run.cut_short = log.resumable
    run.path = store.write(run.result)
    console.print(f"{title}: {describe(session)}", soft_wrap=True)
    for warning in (*session.warnings, *tracking.hand_over(options.log_to, run.result, session, store.local.parent)):
        tell.warn(name, warning)
    if session.findings and index == options.sessions - 1:
        from bench.recorders import table

        console.print(table(session.findings))


def describe(session: SessionResult) -> str:
    """A session in one line."""
    words: list[str] = [session.status]
    if session.step_s:
        words.append(f"{step_times(session).best_known * 1e3:.2f} ms/step")
    if session.losses:
        words.append(f"loss {mean(session.losses[0]):.4f} -> {mean(session.losses[-1]):.4f}")
    if session.reached:
        words.append(f"target reached at step {session.reached.step} after {session.reached.seconds:.1f} s of steps")
    words += [f"{e.metric.replace('_', ' ')} {e.accuracy:.3f} at step {e.step}" for e in session.evaluations if e.split == "eval"]
    return ", ".join(words + ([session.error] if session.error else []))


def short_name(model: str) -> str:
    """A model in a line for people: of a folder its last part."""
    return Path(model).name if Path(model).is_absolute() else model


def summary(runs: Sequence[RunInProgress]) -> dict[str, Any]:
    """The last line of stdout: the run, or the last of several with all of them under `runs`."""
    rows = [row(run) for run in runs]
    if len(rows) == 1:
        return rows[0]
    status = next((r["status"] for r in rows if r["status"] != "passed"), "passed")
    return rows[-1] | {"status": status, "pair_id": runs[0].result.pair_id, "runs": rows}


def row(run: RunInProgress) -> dict[str, Any]:
    """The main figures of a run: seconds of a step over its sessions, losses as means over the probes of a step.

    step_s    geometric mean over sessions of the amortised step; step_s_median: median over sessions of medians over steps
    """
    result, spec = run.result, run.spec
    timed = [s for s in result.sessions if s.status == "passed" and s.step_s]
    first = next((s for s in result.sessions if s.losses), None)
    held_out = [e for s in result.sessions[:1] for e in s.evaluations if e.split == "eval"]
    return {
        "status": result.status if result.sessions else "failed",
        "path": str(run.path) if run.path else None,
        "workload": spec.workload,
        "executor": spec.executor,
        "model": spec.model,
        "step_s": geometric_mean(step_times(s).best_known for s in timed) if timed else None,
        "step_s_median": median(median(s.step_s) for s in timed) if timed else None,
        "loss_first": mean(first.losses[0]) if first else None,
        "loss_last": mean(first.losses[-1]) if first else None,
        "accuracy_before": next((e.accuracy for e in held_out if e.step == 0), None),
        "accuracy_after": next((e.accuracy for e in reversed(held_out) if e.step > 0), None),
        "reached": [s.reached and asdict(s.reached) for s in result.sessions] if spec.until else None,
        "sessions": len(result.sessions),
        "error": next((s.error for s in result.sessions if s.error), None),
    }


def print_table(console: Console, runs: Sequence[RunInProgress]) -> None:
    metric = next((e.metric for run in runs for s in run.result.sessions for e in s.evaluations), "accuracy")
    table = Table("executor", "status", "sessions", "ms/step", "loss", f"held-out {metric.replace('_', ' ')}")
    for run in runs:
        r = row(run)
        step = f"{r['step_s'] * 1e3:.2f}" if r["step_s"] is not None else "-"
        loss = f"{r['loss_first']:.4f} -> {r['loss_last']:.4f}" if r["loss_first"] is not None else "-"
        accuracy = " -> ".join(f"{a:.3f}" for a in (r["accuracy_before"], r["accuracy_after"]) if a is not None) or "-"
        table.add_row(r["executor"], r["status"], str(r["sessions"]), step, loss, accuracy)
    console.print(table)
    for run in runs:
        if run.path:
            console.print(f"written: {run.path}", soft_wrap=True)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
