"""Recorders: where the time, the launches, the memory and the energy of a core step go.

The harness times first and calls `observe` afterwards, on steps of their own, so nothing here can slow a timed step.
`import bench.recorders` is cheap; torch is imported by the functions that need it. A recorder is a class of
`bench.registry.RECORDERS` built on `bench.recorders.base.BaseRecorder`; its module documents the shape of its findings.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.recorders.summary import table
from bench.registry import RECORDERS, resolve

if TYPE_CHECKING:
    from bench.recorders.context import ProfileContext

__all__ = ["Findings", "available", "disagreement", "observe", "table"]

Findings = dict[str, dict[str, Any]]
SPAN_TOLERANCE = 0.05
MARKER_S = 1e-4


def available(name: str, device: str) -> str | None:
    """Why the recorder cannot work on "cpu" or "cuda", and how to mend it; None where it can."""
    return resolve(RECORDERS, "--record", name).available(device)


def beside_blocks() -> list[str]:
    """The recorders of a point among others in one process: all but those that need seconds of steps to themselves."""
    return [name for name in unasked() if resolve(RECORDERS, "--record", name).watches not in ("steps", "turns")]


def unasked() -> list[str]:
    """The recorders that watch where none is named."""
    return [name for name in RECORDERS if not getattr(resolve(RECORDERS, "--record", name), "asked", False)]


def observe(
    context: ProfileContext, names: Sequence[str], run_step: Callable[[int], object], trace_path: Path | None = None
) -> tuple[Findings, list[str]]:
    """Run `context.steps` profiled core steps under the named recorders and hand over what they found.

    names       recorders of `bench.registry.RECORDERS`; an empty sequence means `unasked()`, as far as this device supports them
    run_step    runs one whole core step (perturb, score, update; a fold when due). Called with 0, 1, 2, ... each once and
                in order; the caller adds the number of steps already made. Extra calls warm the profiler up, and recorders
                that the profiler would disturb (energy) get steps of their own, a few seconds of them.
    trace_path  where to leave a gzipped Chrome/Perfetto trace (`.json.gz`), or None
    returns     ({recorder name: findings}, warnings as one-line strings). Findings are plain JSON, each with `version` and
                `overhead`: median seconds of a watched step / median of a timed one, null where no step was watched.
                A recorder that this device or these steps lack is left out, with a warning if it was asked for by name.
    """
    from bench.recorders.buckets import Phases
    from bench.recorders.profile import Profile, synchronize
    from bench.recorders.ranks import RankProfile, Traced

    facts = {"phases": asdict(Phases.of(context))} if trace_path else None
    ranks, profile = None, Profile(context.device, trace_path, facts)
    if context.spec.tensor_parallel > 1 and isinstance(context.executor, Traced):
        profile = ranks = RankProfile(context.device, trace_path, context.executor)
    recorders, warnings, scored = [], [], "losses" if context.spec.reward is None else "rewards"
    for name in names or unasked():
        reason, kind = available(name, context.device.type), resolve(RECORDERS, "--record", name)
        if reason is None and scored not in kind.scores:
            reason = f"it is about steps that are scored by {' or '.join(kind.scores)}, these are by {scored}"
        if ranks and reason is None and kind.over is None:
            reason = "it looks at one process, and several share this model"
        if reason is None:
            recorders.append(kind(context, profile))
        elif names:
            warnings.append(f"recorder {name} left out: {reason}")
    numbers = count()
    overheads: dict[str | None, float | None] = {None: None, "turns": None}

    for recorder in (r for r in recorders if r.watches == "steps"):
        with recorder:
            started = time.perf_counter()
            for _ in range(recorder.steps):
                run_step(next(numbers))
            synchronize(context.device)
            overheads["steps"] = (time.perf_counter() - started) / recorder.steps / context.timed_step_s
    for recorder in (r for r in recorders if r.watches == "turns"):
        recorder.take_turns(lambda: run_step(next(numbers)))
    traced = [r for r in recorders if r.watches == "trace"]
    if traced or trace_path:
        with ExitStack() as watching:
            for recorder in traced:
                watching.enter_context(recorder)
            plainly = getattr(context.executor, "unrecorded", nullcontext)
            profile.run(lambda: run_step(next(numbers)), context.steps, plainly())
        overheads["trace"] = statistics.median(profile.wall_s) / context.timed_step_s
        windows = profile.timeline.windows(context.device.type == "cuda")
        if ranks is None:  # the driver's clock has the calls of the ranks in it
            warnings += disagreement(profile.wall_s, [(end - start) / 1e6 for start, end in windows])

    findings: Findings = {}
    for recorder in recorders:
        try:
            found = ranks.collect(recorder) if ranks and recorder.watches == "trace" else recorder.collect()
        except (RuntimeError, OSError) as error:  # the timings are made: a full GPU or disk must not cost them
            warnings.append(f"recorder {recorder.name} failed: {str(error).splitlines()[0]}")
        else:
            findings[recorder.name] = {"version": recorder.version, "overhead": overheads[recorder.watches]} | found
    return findings, warnings


def disagreement(wall_s: Sequence[float], traced_s: Sequence[float]) -> list[str]:
    """A warning where the trace lost steps, or the usual step is not as long in it as by the clock (wall, or CUDA events).

    Setting a step's marker takes some microseconds itself, and one step may be interrupted between marker and clock.
    """
    if len(wall_s) != len(traced_s):
        return [f"profiled steps: the trace holds {len(traced_s)} of {len(wall_s)}; profile fewer or shorter steps"]
    apart = statistics.median((abs(t - w) - MARKER_S) / w for w, t in zip(wall_s, traced_s, strict=True))
    if apart <= SPAN_TOLERANCE:
        return []
    return [f"profiled steps: trace and wall clock differ by {apart:.0%}; treat the breakdown with care"]
