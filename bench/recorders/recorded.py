"""What the kernels of a recorded pass are for: a graph is one launch, and its kernels carry no operator and no range.

The warm-up step of a profiled pass runs the same pass kernel by kernel where the executor can (`unrecorded`). A graph's kernels
are then told by name and order: those in a run of equal names get the operators and ranges of their counterparts there. The rest
are known by their own names alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import SequenceMatcher

from bench.recorders.activity import STEP, WARMUP, Activity

LEAST = 3
"""Kernels in a row that have to be alike: shorter runs are found anywhere."""


def place(device: Iterable[Activity]) -> list[Activity]:
    """The same work, that of graphs with the names and ranges of what it repeats."""
    launched = sorted(device, key=lambda a: a.start)
    model = [a for a in launched if a.graph is None and WARMUP in a.ranges]
    graphs: dict[int, list[Activity]] = {}
    for activity in launched:
        if activity.graph is not None:
            graphs.setdefault(activity.graph, []).append(activity)
    matches: dict[tuple[str, ...], dict[int, int]] = {}
    found = [a for a in launched if a.graph is None]
    for kernels in graphs.values():
        names = tuple(a.name for a in kernels)
        if names not in matches:
            matches[names] = _align(names, tuple(a.name for a in model))
        found += [_like(a, model[matches[names][i]]) if i in matches[names] else a for i, a in enumerate(kernels)]
    return found


def _align(names: tuple[str, ...], model: tuple[str, ...]) -> dict[int, int]:
    """Position in a graph -> position among the kernels launched one by one."""
    blocks = SequenceMatcher(None, names, model, autojunk=False).get_matching_blocks()
    return {block.a + i: block.b + i for block in blocks if block.size >= LEAST for i in range(block.size)}


def _like(activity: Activity, model: Activity) -> Activity:
    inner = tuple(name for name in model.ranges if name not in (WARMUP, *activity.ranges) and not name.startswith(STEP))
    return replace(activity, names=model.names, ranges=(*activity.ranges, *inner), placed=True)
