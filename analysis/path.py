"""The way from the official loop to the fastest point, station by station: what each rung and each feature contributes.

Made from the points of one interleaved run (`ablate`), which share a pair id. Rungs lie between two neighbouring stations; the
features, on a GPU with the runtime among them, are attributed over the factorial between all-off and all-on. Every part is one
contrast of the logarithms of step times, so their ratios multiply exactly to the total. A station that was not measured merges
the rungs on its two sides.
The same contrasts over the kernel buckets of the profiled passes are shown beside: a part whose two figures differ by much is
flagged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Table

from analysis.attribution import interactions, shapley
from analysis.points import DENSE, FEATURES, NAMES, OFF, ON, RUNTIME, corners, groups, point
from analysis.runs import Run, find
from analysis.statistics import Ratio, contrasts

DISAGREE, NEGLIGIBLE, SHOWN = 0.20, 0.02, 2
Station = tuple[str, Run | None]
"""The rung that leads to a point, and the point (None: not measured)."""


@dataclass(frozen=True)
class Part:
    """One rung or feature: its ratio, and the seconds of a step it saves by the clock and in the buckets of the profiled passes.

    buckets    bucket (or `idle`) -> seconds saved in it, largest change first; empty when a pass was not profiled
    agrees     whether clock and buckets are within 20 % of one another, or both within 2 % of the whole saving
    """

    name: str
    ratio: Ratio
    saved_s: float
    buckets: Mapping[str, float]
    agrees: bool | None

    @property
    def profiled_s(self) -> float | None:
        return sum(self.buckets.values()) if self.buckets else None

    @property
    def mostly(self) -> str:
        """The buckets that make most of the difference, in words: `gemm 12.1, attention -0.8` (ms)."""
        return ", ".join(f"{name} {seconds * 1e3:.1f}" for name, seconds in [*self.buckets.items()][:SHOWN])


@dataclass(frozen=True)
class AttributionPath:
    """The parts' ratios multiply to `total`. pairs: interactions of features, above 1 where two help one another; recorded: how
    the kernels of recorded passes were told apart, in words, where there are such passes."""

    executor: str
    kv: str
    first: Run
    last: Run
    parts: tuple[Part, ...]
    pairs: Mapping[str, Ratio]
    total: Ratio
    recorded: str

    @property
    def title(self) -> str:
        spec, device = self.first.spec, self.first.result.environment.get("device")
        how = "like for like, kv=recompute everywhere" if self.kv == "recompute" else "everything on"
        return f"{spec['workload']}, {spec['model']}, {spec['task']}, {device}, features of {self.executor}: {how}"


def paths(runs: Iterable[Run]) -> list[AttributionPath]:
    """Of every interleaved run among these, for each executor with a full factorial: the like-for-like path and the full one."""
    return [
        _path(group, executor, kv)
        for group in groups(runs)
        for executor in ("eager", "vllm")
        for kv in (("recompute", "shared") if corners(group, executor, FEATURES) else ())
    ]


def print_path(path: AttributionPath, console: Console) -> None:
    """One table: every part with its ratio and interval, and what the profiled passes say of it."""
    headings = ("part", "ratio", "95 % CI", "verdict", "saves, ms", "profiled, ms", "mostly in, ms")
    table = Table(*headings, title=path.title, caption=_caption(path), min_width=110)
    for part in path.parts:
        profiled = "-" if part.profiled_s is None else f"{part.profiled_s * 1e3:.1f}" + ("" if part.agrees else " (differs)")
        ratio = (f"{part.ratio.value:.2f}", part.ratio.interval, part.ratio.verdict)
        table.add_row(part.name, *ratio, f"{part.saved_s * 1e3:.1f}", profiled, part.mostly)
    table.add_section()
    table.add_row(
        f"{path.first.label} to {path.last.label}", f"{path.total.value:.2f}", path.total.interval, path.total.verdict, "", "", ""
    )
    console.print(table)


def _path(group: list[Run], executor: str, kv: str) -> AttributionPath:
    like_for_like = [f for f in FEATURES if f != "kv" or kv == "shared"]
    factors = [*like_for_like, RUNTIME]
    square = corners(group, executor, factors) or corners(group, executor, factors := like_for_like)
    measured = list(square.values())
    before = _chain(_before(group, executor, measured[0]))
    after = _chain([("", measured[-1]), *_after(group, executor, kv)])
    runs = list(dict.fromkeys([run for _, run in before] + measured + [run for _, run in after]))
    at = {run: i for i, run in enumerate(runs)}

    def between(start: Run, end: Run) -> np.ndarray:
        row = np.zeros(len(runs))
        row[at[end]] += 1
        row[at[start]] -= 1
        return row

    def spread(weights: np.ndarray) -> np.ndarray:
        row = np.zeros(len(runs))
        for weight, run in zip(weights, measured, strict=True):
            row[at[run]] += weight
        return row

    names = [name for name, _ in before[1:]] + [NAMES[f] for f in factors] + [name for name, _ in after[1:]]
    rows = [between(a, b) for (_, a), (_, b) in pairwise(before)]
    rows += [spread(weights) for weights in shapley(factors)]
    rows += [between(a, b) for (_, a), (_, b) in pairwise(after)]
    pairs = [f"{NAMES[a]} and {NAMES[b]}" for i, a in enumerate(factors) for b in factors[i + 1 :]]
    extra = [spread(weights) for weights in interactions(factors)] + [between(before[0][1], after[-1][1])]
    ratios = contrasts([run.sample for run in runs], np.vstack([*rows, *extra]), "block")
    parts = _parts(names, ratios, np.vstack(rows), runs)
    return AttributionPath(
        executor,
        kv,
        before[0][1],
        after[-1][1],
        parts,
        dict(zip(pairs, ratios[len(rows) : -1], strict=True)),
        ratios[-1],
        _recorded(runs),
    )


def _recorded(runs: Sequence[Run]) -> str:
    """What of the time in recorded passes is known by what: a launch of a whole graph says nothing of its kernels."""
    found = [f["recorded"] for run in runs if (f := run.finding("time_breakdown")) and f.get("recorded")]
    whole = sum(sum(part.values()) for part in found)
    if not whole:
        return ""
    words = {"order": "by its place among the same kernels, launched one by one", "name": "by its name alone", "unknown": "not"}
    shares = ", ".join(f"{sum(part[key] for part in found) / whole:.1%} {text}" for key, text in words.items())
    return f"time in recorded passes is attributed: {shares}"


def _before(group: list[Run], executor: str, off: Run) -> list[Station]:
    """From the official loop to the executor's all-off point. vLLM never pads, so that rung comes before it."""
    stations: list[Station] = [
        ("", find(group, executor="official")),
        ("loop overhead: temporaries, waits", point(group, "eager", "every position", **DENSE)),
        ("last position only: logits where the loss needs them", point(group, "eager", **DENSE)),
    ]
    adapters = "adapter form: weights stay"
    if executor == "eager":
        return [*stations, (adapters, off)]
    stations.append(("padding", point(group, "eager", "unpadded", **DENSE)))
    stations.append((adapters, point(group, "eager", "unpadded", **OFF)))
    return [*stations, ("runtime: vLLM's model for eager PyTorch", off)]


def _after(group: list[Run], executor: str, kv: str) -> list[Station]:
    """From the executor's all-on point to the fastest there is. By requests vLLM always runs compiled, where it compiles."""
    on = {**ON, "kv": kv}
    fastest = find(group, executor="vllm", loop="resident", variant="", **on)
    if executor == "eager":
        return [
            ("padding", point(group, "eager", "unpadded", **on)),
            ("runtime: vLLM, by requests", find(group, executor="vllm", loop="requests", variant="", **on)),
            ("scheduler: resident steps for requests", fastest),
        ]
    if point(group, "vllm", "recorded", **on):
        return [("runtime: torch.compile", fastest)]
    if not point(group, "vllm", "uncompiled", **on):
        return []
    compiled = find(group, executor="vllm", loop="resident", variant="no graphs", **on)
    return [("runtime: torch.compile", compiled), ("runtime: CUDA graphs", fastest)]


def _chain(stations: Sequence[Station]) -> list[tuple[str, Run]]:
    """Stations that were measured; the rungs over a missing one become one."""
    found: list[tuple[str, Run]] = []
    names: list[str] = []
    for name, run in stations:
        names += [name] if name else []
        if run is not None:
            found.append(("; ".join(names), run))
            names = []
    return found


def _parts(names: Sequence[str], ratios: Sequence[Ratio], rows: np.ndarray, runs: Sequence[Run]) -> tuple[Part, ...]:
    clock = -rows @ np.array([run.summary.amortised for run in runs])
    negligible = NEGLIGIBLE * np.abs(clock).sum()
    profiles = [_profile(run) for run in runs]
    found = []
    for name, ratio, row, saved_s in zip(names, ratios[: len(names)], rows, clock, strict=True):
        known = all(profiles[i] for i in np.flatnonzero(row))
        saved = {b: -sum(w * p.get(b, 0.0) for w, p in zip(row, profiles, strict=True)) for p in profiles for b in p}
        buckets = dict(sorted(saved.items(), key=lambda item: -abs(item[1]))) if known else {}
        apart = abs(sum(buckets.values()) - saved_s)
        agrees = bool(apart <= max(DISAGREE * abs(saved_s), negligible)) if buckets else None
        found.append(Part(name, ratio, float(saved_s), buckets, agrees))
    return tuple(found)


def _profile(run: Run) -> dict[str, float]:
    """Seconds of a profiled step by bucket, and idle; empty where the run was not profiled."""
    found = run.finding("time_breakdown")
    return {**found["buckets"], "idle": found["idle_s"]} if found else {}


def _caption(path: AttributionPath) -> str:
    n = f"n = {path.total.n} blocks a point; the ratios multiply to the last line"
    helps = [f"interaction of {name}: {r.value:.2f}, {r.interval}" for name, r in path.pairs.items()]
    return "\n".join([n, *helps, *([path.recorded] if path.recorded else [])])
