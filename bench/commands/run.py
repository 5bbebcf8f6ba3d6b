"""`run`: sessions of one or several executors, interleaved, a result file for each executor written after every session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.commands.terminal import stderr_console
from bench.config import RunOptions
from bench.defaults import complete_all, default_sessions
from bench.errors import UsageError
from bench.harness.conduct import conduct, start
from bench.journal.store import Store
from bench.registry import RECORDERS, known


def run(
    given: dict[str, Any],
    *,
    executors: Sequence[str],
    sessions: int | None,
    timeout_s: float,
    profile: bool,
    record: tuple[str, ...],
    trace: bool,
    results: str,
) -> int:
    """Run every executor's spec; human text to stderr, one JSON object as the last line of stdout. Returns the exit code."""
    for name in record:
        known(RECORDERS, "--record", name)
    if (record or trace) and not profile:
        raise UsageError("--no-profile with --record or --trace: recorders watch the profiled pass; drop one of them")
    store, console = Store(results), stderr_console()  # a folder that cannot be written to is found before anything slow
    specs = complete_all(given, executors)
    count = default_sessions(specs[0].model) if sessions is None else sessions
    options = RunOptions(count, timeout_s, profile, record, trace, results)
    return conduct(start(specs, options, store), options, store, console)
