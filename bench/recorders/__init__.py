"""Recorders: where the time, the launches, the memory and the energy of a core step go.

The harness times first and calls `observe` afterwards, on steps of their own, so nothing here can slow a timed step.
`import bench.recorders` is cheap; torch is imported by the functions that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.harness.context import ProfileContext

Findings = dict[str, dict[str, Any]]


def observe(
    context: ProfileContext, names: Sequence[str], run_step: Callable[[int], object], trace_path: Path | None = None
) -> tuple[Findings, list[str]]:
    """Run `context.steps` profiled core steps under the named recorders and hand over what they found.

    names       recorders of `bench.registry.RECORDERS`; an empty sequence means all that this device supports
    run_step    runs one whole core step (perturb, score, update; a fold when due). Called with 0, 1, 2, ... each once and
                in order; the caller adds the number of steps already made. One or more extra calls warm the profiler up.
    trace_path  where to leave a gzipped Chrome/Perfetto trace (`.json.gz`), or None
    returns     ({recorder name: findings, plain JSON, each with `version` and `overhead`}, warnings as one-line strings).
                A recorder that this device lacks is left out, with a warning if it was asked for by name.
    """
    raise NotImplementedError
