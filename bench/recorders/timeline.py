"""A Chrome trace of a profiled pass as plain records: who ran when, inside which operators, phases and steps.

One reader serves both devices: operators on the CPU, kernels, copies and fills on a GPU. It needs no torch, so traces
written by hand exercise the GPU path on a machine without one. Times inside are microseconds, as in the trace.

On a GPU the host runs ahead: while it prepares one step, an earlier one may still be running. So GPU work belongs to the step
in which the host launched it, and a step lasts there from the end of the last work launched before it to the end of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from bench.api import MARK
from bench.recorders.activity import GRAPH_LAUNCH, STEP, WARMUP, Activity, Interval
from bench.recorders.recorded import place

HOST_LAUNCHES = ("cuda_runtime", "cuda_driver")
DEVICE_KINDS: dict[str, Literal["kernel", "memcpy", "memset"]] = {
    "kernel": "kernel",
    "gpu_memcpy": "memcpy",
    "gpu_memset": "memset",
}
CPU = 0
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timeline:
    """What ran inside the steps of a profiled pass.

    steps          [start, end] of every step on the host, warm-up apart
    device_steps   the same on the GPU: each begins where the work launched before it ended; empty without GPU work
    phases         (phase, start, end) of every phase marker on the host
    operators      on the CPU, in order of their start
    device         kernels, copies and fills of a GPU launched inside the steps, in order of their start
    calls          names of the CUDA runtime and driver calls made by the host, those inside another such call left out
    allocated      (time, bytes) held on the CPU by tensors allocated since the profiler started
    """

    steps: tuple[Interval, ...]
    device_steps: tuple[Interval, ...]
    phases: tuple[tuple[str, float, float], ...]
    operators: tuple[Activity, ...]
    device: tuple[Activity, ...]
    calls: tuple[str, ...]
    allocated: tuple[tuple[float, int], ...]

    def windows(self, on_gpu: bool) -> tuple[Interval, ...]:
        """The steps on the timeline that the work ran on."""
        return self.device_steps if on_gpu else self.steps


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that may have launched GPU work: when it began, and what was around it."""

    start: float
    names: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    graph: bool = False


@dataclass(slots=True)
class _Open:
    """An event whose end the sweep has not reached yet."""

    end: float
    names: tuple[str, ...]
    ranges: tuple[str, ...]
    activity: Activity | None
    covered: float


def read_trace(trace: dict[str, Any]) -> Timeline:
    """Read a trace written by `torch.profiler` (`traceEvents`): what the host did or launched inside the `zo.step` ranges."""
    threads: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    launched: list[dict[str, Any]] = []
    allocated = []
    for event in trace["traceEvents"]:
        category, name = event.get("cat"), event.get("name", "")
        if category == "cpu_op" or category in HOST_LAUNCHES or (category == "user_annotation" and name.startswith("zo.")):
            threads[event["pid"], event["tid"]].append(event)
        elif category in DEVICE_KINDS:
            launched.append(event)
        elif name == "[memory]" and event["args"].get("Device Type") == CPU:
            allocated.append((event["ts"], event["args"]["Total Allocated"]))
    origin = min((event["ts"] for events in threads.values() for event in events), default=0.0)
    operators: list[Activity] = []
    launches: dict[int | None, _Call] = {}
    ranges, calls = [], []
    for events in threads.values():
        found, called, marked = _sweep(events, origin, launches)
        operators += found
        calls += called
        ranges += marked
    steps = tuple(sorted((start, end) for name, start, end in ranges if name.startswith(STEP)))
    inside = _membership(steps)
    device = place([_device_activity(event, origin, launches) for event in launched])
    return Timeline(
        steps=steps,
        device_steps=_device_steps(steps, device),
        phases=tuple((n[3:], s, e) for n, s, e in ranges if not n.startswith((STEP, WARMUP, MARK)) and inside(s)),
        operators=tuple(sorted((a for a in operators if inside(a.start)), key=lambda a: a.start)),
        device=tuple(sorted((a for a in device if inside(a.launched)), key=lambda a: a.start)),
        calls=tuple(name for name, start in calls if inside(start)),
        allocated=tuple(sorted((at - origin, size) for at, size in allocated)),
    )


def _sweep(
    events: list[dict[str, Any]], origin: float, launches: dict[int | None, _Call]
) -> tuple[list[Activity], list[tuple[str, float]], list[tuple[str, float, float]]]:
    """Walk the nested events of one thread: its operators with their own time, launch calls, and ranges."""
    operators: list[Activity] = []
    calls: list[tuple[str, float]] = []
    ranges: list[tuple[str, float, float]] = []
    stack: list[_Open] = []
    calling = 0.0

    def close(top: _Open) -> None:
        if top.activity and top.end > top.covered:
            top.activity.spans.append((top.covered, top.end))

    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        start = event["ts"] - origin
        end, name = start + event["dur"], event["name"]
        while stack and stack[-1].end <= start:
            close(stack.pop())
        around = stack[-1] if stack else _Open(end, (), (), None, start)
        if event["cat"] == "user_annotation":
            ranges.append((name, start, end))
            stack.append(_Open(end, around.names, (*around.ranges, name), None, start))
        elif event["cat"] in HOST_LAUNCHES:
            graph = bool(GRAPH_LAUNCH.match(name))
            launches.setdefault(event["args"].get("correlation"), _Call(start, around.names, around.ranges, graph))
            if start >= calling:  # else a driver call inside a runtime call: one launch, whether they share a number or not
                calls.append((name, start))
                calling = end
        else:
            holder = next((o for o in reversed(stack) if o.activity), None)
            parent = holder.activity if holder else None
            inputs = _inputs(event["args"])
            activity = Activity("operator", (*around.names, name), around.ranges, start, end, start, parent=parent, inputs=inputs)
            if holder and parent:
                parent.leaf = False
                if start > holder.covered:
                    parent.spans.append((holder.covered, start))
                holder.covered = max(holder.covered, end)
            operators.append(activity)
            stack.append(_Open(end, activity.names, around.ranges, activity, start))
    while stack:
        close(stack.pop())
    return operators, calls, ranges


def _inputs(arguments: dict[str, Any]) -> tuple[tuple[list[int], str], ...]:
    """Lists of tensors are left out: their types are not in the trace."""
    kinds = arguments.get("Input type", ())
    return tuple(
        (shape, kind) for shape, kind in zip(arguments.get("Input Dims", ()), kinds, strict=False) if kind != "TensorList"
    )


def _device_activity(event: dict[str, Any], origin: float, launches: dict[int | None, _Call]) -> Activity:
    """GPU work, placed under the operators and ranges of the call that launched it (of the graph, for a graph's kernels)."""
    start = event["ts"] - origin
    end = start + event["dur"]
    number = event["args"].get("correlation")
    by = launches.get(number, _Call(start))
    spans, graph = [(start, end)], number if by.graph else None
    return Activity(DEVICE_KINDS[event["cat"]], (*by.names, event["name"]), by.ranges, start, end, by.start, spans, graph=graph)


def _device_steps(steps: Sequence[Interval], device: Sequence[Activity]) -> tuple[Interval, ...]:
    """Each step from where the work launched before it ended to where its own ended; a GPU at rest before begins with the host.

    They touch, as CUDA events between the steps do, so what the GPU waits for the host anywhere is idle time of some step.
    """
    if not (steps and device):
        return ()
    until = max((a.end for a in device if a.launched < steps[0][0]), default=steps[0][0])
    found = []
    for start, end in steps:
        since, until = until, max([until, *(a.end for a in device if start <= a.launched < end)])
        found.append((since, until))
    return tuple(found)


def _membership(windows: Sequence[Interval]) -> Callable[[float], bool]:
    starts = [start for start, _ in windows]

    def inside(at: float) -> bool:
        index = bisect_right(starts, at) - 1
        return index >= 0 and at < windows[index][1]

    return inside


def exclusive(work: Iterable[tuple[Interval, Key]], windows: Sequence[Interval]) -> tuple[dict[Key, float], float]:
    """Share every instant of the windows among what ran then, so that the shares and the idle time sum to the windows.

    An instant with several activities is split equally between them.
    work       ((start, end), key), any order, overlaps allowed
    windows    disjoint and ascending
    returns    (microseconds by key, idle microseconds)
    """
    edges: list[tuple[float, int, Any]] = []
    for (start, end), key in work:
        if end > start:
            edges += [(start, 1, key), (end, -1, key)]
    edges += [(at, 0, None) for window in windows for at in window]
    edges.sort(key=lambda edge: edge[0])
    inside = _membership(windows)
    shares: dict[Any, float] = defaultdict(float)
    running: dict[Any, int] = {}
    idle, before = 0.0, 0.0
    for at, change, key in edges:
        if at > before and inside(before):
            total = sum(running.values())
            if not total:
                idle += at - before
            for each, count in running.items():
                shares[each] += (at - before) * count / total
        before = at
        if change:
            running[key] = running.get(key, 0) + change
            if not running[key]:
                del running[key]
    return dict(shares), idle
