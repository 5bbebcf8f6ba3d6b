"""`run`: sessions of one or several executors, interleaved, a result file for each executor written after every session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.config import RunOptions
from bench.defaults import complete_all, default_sessions
from bench.errors import UsageError
from bench.harness.conduct import conduct, start
from bench.journal.store import Store
from bench.registry import RECORDERS, known
from bench.terminal import stderr_console


def run(given: dict[str, Any], options: dict[str, Any], *, executors: Sequence[str]) -> int:
    """Run every executor's spec; human text to stderr, one JSON object as the last line of stdout. Returns the exit code.

    given, options: the fields of RunSpec and of RunOptions that were typed.
    """
    chosen = RunOptions(**options)
    for name in chosen.record:
        known(RECORDERS, "--record", name)
    if (chosen.record or chosen.trace) and not chosen.profile:
        raise UsageError("--no-profile with --record or --trace: recorders watch the profiled pass; drop one of them")
    store, console = Store(chosen.results), stderr_console()  # a folder that cannot be written to is found before anything slow
    specs = complete_all(given, executors)
    if "sessions" not in options:
        chosen = replace(chosen, sessions=default_sessions(specs[0].model))
    return conduct(start(specs, chosen, store), chosen, store, console)
