"""Where the time of a core step goes: kernels on a GPU, operators' own time on a CPU, in named buckets, and the idle rest.

Every instant of a step goes to exactly one row, so the rows and `idle_s` add up to `span_s`. On a CPU the idle time is
Python and the framework between operators; on a GPU it is the GPU waiting.

Findings, seconds per step (means over the profiled steps unless said):
    steps                 how many steps were profiled
    wall_s                length of each of them, profiler on, by a clock apart from the trace: wall clock, on a GPU CUDA events
    span_s                length of a step in the trace; on a GPU from the end of the last work launched before the step to the
                          end of the last work the step launched, as the host may be steps ahead
    buckets               bucket -> seconds, only those that occur
    idle_s                covered by nothing
    phases                phase -> {"wall_s": between its markers on the host, "buckets": {...}}; work outside any phase is under
                          "none"; null when the trace has no markers (`phases_unavailable` says why)
    recorded              seconds in recorded passes by how it is known what they are for: "order", "name", "unknown"
                          (`bench.recorders.recorded`); null where no pass was one graph
    largest               bucket -> [[name, seconds], ...] its largest contributors; those of `other` are the unmatched names
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar, Literal

from bench.api import BUCKETS, Bucket
from bench.recorders.activity import Activity
from bench.recorders.base import TraceRecorder
from bench.recorders.buckets import classify
from bench.recorders.timeline import exclusive

LARGEST = 5
NAME_LENGTH = 100
NO_MARKERS = "no phase markers in the trace: the whole step is one graph, or the executor sets none"


class TimeBreakdown(TraceRecorder):
    """Exclusive time of a step by bucket and phase (see the module for the shape)."""

    name: ClassVar[str] = "time_breakdown"
    version: ClassVar[int] = 3  # 1: steps began with an empty GPU; 2: kernels of graphs by their names alone
    over: ClassVar[Literal["sum", "first"] | None] = "first"

    def collect(self) -> dict[str, Any]:
        timeline, phases = self.timeline, self.phases
        work: tuple[Activity, ...] = timeline.device if self.on_gpu else timeline.operators
        windows = timeline.windows(self.on_gpu)
        steps = len(windows)
        keyed = [
            (span, (activity.phase or "none", classify(activity, phases), activity.name[:NAME_LENGTH], _known(activity)))
            for activity in work
            for span in activity.spans
        ]
        shares, idle = exclusive(keyed, windows)
        buckets: dict[Bucket, float] = defaultdict(float)
        by_phase: dict[str, dict[Bucket, float]] = defaultdict(lambda: defaultdict(float))
        names: dict[Bucket, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        recorded = dict.fromkeys(("order", "name", "unknown"), 0.0)
        for (phase, bucket, name, known), microseconds in shares.items():
            seconds = microseconds / 1e6 / steps
            if known:
                recorded["unknown" if bucket == "other" else known] += seconds
            buckets[bucket] += seconds
            by_phase[phase][bucket] += seconds
            names[bucket][name] += seconds
        walls: dict[str, float] = defaultdict(float)
        for phase, start, end in timeline.phases:
            walls[phase] += (end - start) / 1e6 / steps
        span_s = sum(end - start for start, end in windows) / 1e6 / steps
        return {
            "steps": steps,
            "wall_s": self.profile.wall_s,
            "span_s": span_s,
            "buckets": {bucket: buckets[bucket] for bucket in BUCKETS if bucket in buckets},
            "idle_s": idle / 1e6 / steps,
            "phases": {
                phase: {"wall_s": walls.get(phase), "buckets": dict(by_phase.get(phase, {}))}
                for phase in sorted(set(walls) | set(by_phase))
            }
            if walls
            else None,
            "phases_unavailable": None if walls else NO_MARKERS,
            "recorded": recorded if any(recorded.values()) else None,
            "largest": {
                bucket: [list(pair) for pair in sorted(found.items(), key=lambda pair: -pair[1])[:LARGEST]]
                for bucket, found in names.items()
            },
        }


def _known(activity: Activity) -> str:
    """By what the work of a graph is told; empty for what the host launched by itself."""
    return "" if activity.graph is None else "order" if activity.placed else "name"
