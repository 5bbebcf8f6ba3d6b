"""`sweep`: every combination of some settings, sessions interleaved; then what each axis does to the core step.

The combinations share a pair id made from what is run, so the same command goes on with the sessions that are missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.commands.resume import check, reopen
from bench.commands.sweep.grid import Combination, combinations, plan, read_grid, refusals
from bench.config import RunOptions
from bench.environment import environment
from bench.errors import UsageError
from bench.harness.conduct import RunInProgress, conduct, start
from bench.journal.file import JournalWriter, find_journals
from bench.journal.store import Store
from bench.terminal import stderr_console


def sweep(
    given: dict[str, Any],
    options: dict[str, Any],
    *,
    file: str | None,
    grid: Sequence[str],
    dry_run: bool = False,
    skip_refused: bool = False,
) -> int:
    """given, options: the fields of RunSpec and of RunOptions that were typed; they win over those of the file.

    Prints a table for each axis and one JSON object; returns the exit code.
    """
    asked = read_grid(file, grid)
    if twice := sorted(asked.axes.keys() & (given.keys() | asked.fixed.keys())):
        raise UsageError(f"{twice[0]}: is an axis and set to one value too; leave one of them out")
    chosen = RunOptions(**({"sessions": 3} | asked.options | options))
    found = combinations(asked.axes, asked.fixed | given)
    runnable = [one for one in found if one.spec is not None]
    console = stderr_console()
    if dry_run:
        console.print(plan(found, chosen.sessions))
    if not runnable or (len(runnable) < len(found) and not skip_refused):
        raise UsageError(refusals(found))
    if dry_run:
        listed = [{**one.values, "refused": one.refused or None} for one in found]
        print(json.dumps({"status": "passed", "points": listed, "sessions": chosen.sessions}, separators=(",", ":")))
        return 0
    store = Store(chosen.results)
    pair_id = identify(runnable)
    with ExitStack() as opened:
        runs = begin(runnable, chosen, store, pair_id, opened)
        code = conduct(runs, chosen, store, console, quiet=True, tables=False)
    points = list(zip(runnable, runs, strict=True))
    figures = show(list(asked.axes), points, store, pair_id, console)
    last = {"status": "passed" if code == 0 else "failed", "pair_id": pair_id, "figures": figures}
    rows = [{**one.values, "status": run.result.status, "path": str(run.path) if run.path else None} for one, run in points]
    if code:
        console.print("some sessions did not pass; the same command goes on with what is missing")
    print(json.dumps(last | {"points": rows}, separators=(",", ":")))
    return code


def identify(found: Sequence[Combination]) -> str:
    """Of what is run and where; more --sessions are the same sweep."""
    specs = [one.spec for one in found if one.spec]
    key = [[spec.to_json() for spec in specs], environment(specs[0].device)["device"]]
    return hashlib.sha256(json.dumps(["sweep", key], sort_keys=True).encode()).hexdigest()[:8]


def begin(
    found: Sequence[Combination], options: RunOptions, store: Store, pair_id: str, opened: ExitStack
) -> list[RunInProgress]:
    """A run for each combination: the one that an earlier call has begun, or a new one."""
    held: dict[str, RunInProgress] = {}
    for path in _journals(pair_id, store):
        writer = JournalWriter(path, new=False)
        opened.callback(writer.close)
        journal = writer.read()
        run = reopen(journal, check(journal, {}), writer, store)
        held[repr(run.spec)] = run
    specs = [one.spec for one in found if one.spec]
    fresh = {repr(run.spec): run for run in start([s for s in specs if repr(s) not in held], options, store, pair_id)}
    runs = [(held | fresh)[repr(spec)] for spec in specs]
    for one, run in zip(found, runs, strict=True):
        run.among = f", {one.name}"
    return runs


def _journals(pair_id: str, store: Store) -> list[Path]:
    try:
        return find_journals(pair_id, store.local)
    except UsageError:  # none: the sweep begins
        return []


def show(
    axes: Sequence[str], points: Sequence[tuple[Combination, RunInProgress]], store: Store, pair_id: str, console: Console
) -> dict[str, str]:
    """Print a table and draw a figure for each axis; axis -> picture."""
    from analysis.runs import Run
    from analysis.sweep import along, draw_axis, print_axis

    seen = [(one.values, Run(run.path or Path(), run.result)) for one, run in points]
    figures = {}
    for axis in axes:
        rows = along(axis, seen)
        print_axis(axis, rows, console)
        if any(row.seconds for row in rows):
            picture = store.local / f"sweep_{pair_id}_{axis}.png"
            draw_axis(axis, rows, picture)
            figures[axis] = str(picture)
    for drawn in figures.values():
        console.print(f"drawn: {drawn}", soft_wrap=True)
    return figures
