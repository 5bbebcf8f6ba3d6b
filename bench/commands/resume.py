"""`run --resume RUN`: goes on with the sessions that an interrupted run left undone, from its journal alone."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.config import RunOptions, RunSpec
from bench.defaults import CLUSTER, PLACES, pick_device, places
from bench.errors import UsageError, option
from bench.harness.conduct import RunInProgress, Watch, conduct
from bench.journal.events import SessionLog
from bench.journal.file import SUFFIX, Journal, JournalWriter, find_journals
from bench.journal.store import Store
from bench.registry import EXECUTORS, known, workload_class
from bench.registry import check as check_spec
from bench.terminal import stderr_console


def resume(
    run: str,
    moved: dict[str, Any],
    *,
    timeout_s: float | None = None,
    results: str = RunOptions.results,
    quiet: bool = False,
    watch: Watch | None = None,
) -> int:
    """run: id of a run or of a pair, or the path of a journal or result; moved: where model, data and upstream's code are now.

    Returns the exit code.
    """
    paths = find_journals(run, Path(results))
    folder = paths[0].parent
    if folder.name != "local":
        raise UsageError(f"--resume {run}: its journal lies in {folder}; move it into the local/ of a results folder to go on")
    store, runs = Store(folder.parent), list[RunInProgress]()
    with ExitStack() as opened:
        for path in paths:
            writer = JournalWriter(path, new=False)
            opened.callback(writer.close)
            journal = writer.read()
            spec = check(journal, moved)
            options = replace(journal.header.options, results=str(folder.parent))
            runs.append(reopen(journal, spec, writer, store))
        options = options if timeout_s is None else replace(options, timeout_s=timeout_s)
        return conduct(runs, options, store, stderr_console(), quiet=quiet, watch=watch)


def check(journal: Journal, moved: dict[str, Any]) -> RunSpec:
    """The spec to go on with. UsageError when this version or this machine cannot go on with the run."""
    spec = current(journal, moved)
    known(EXECUTORS, "--executor", spec.executor)
    check_spec(spec)
    pick_device(spec.device)
    return spec


def current(journal: Journal, moved: dict[str, Any]) -> RunSpec:
    """The run's spec with the places its files are in now.

    UsageError when they are not there, or when the workload is no longer the one that was run: it would replay to another state.
    """
    elsewhere = {name: moved[name] for name in CLUSTER if moved.get(name) is not None}
    header, spec = journal.header, replace(journal.header.spec, **places(moved), **elsewhere)
    for name in PLACES:
        place = getattr(spec, name)
        if place is not None and Path(place).is_absolute() and not Path(place).exists():
            raise UsageError(f"{option(name)} {place}: no longer there; give the place it was moved to with {option(name)}")
    version = workload_class(spec.workload).version
    if version != header.result.workload_version:
        raise UsageError(
            f"{journal.path}: {spec.workload} was at version {header.result.workload_version}, it is now at {version}; run again"
        )
    return spec


def reopen(journal: Journal, spec: RunSpec, writer: JournalWriter, store: Store) -> RunInProgress:
    """The run as its journal has it: finished sessions in the result, the one that was cut short ready to go on."""
    run = RunInProgress(journal.header.result, spec, journal.path.name.removesuffix(SUFFIX), writer)
    for index, history in sorted(journal.sessions.items()):
        log = SessionLog(index)
        for event in history.events:
            log.add(event)
        if history.done:
            run.add(log.result(), log.data)
            run.path = store.write(run.result)
        else:
            resumed = {"event": "resumed", "step": len(history.steps)}
            run.journal.event(index, resumed)
            log.add(resumed)
            run.logs[index] = log
    return run
