"""The way from the official loop to the fastest point, station by station: what each rung and each feature contributes.

Made from the points of one interleaved run (`ablate`), which share a pair id. Rungs lie between two neighbouring stations; the
features are attributed over the factorial between all-off and all-on. Every part is one contrast of the logarithms of median
step times, so their ratios multiply exactly to the total. A station that was not measured merges the rungs on its two sides.
The same contrasts over the profiled passes' spans are shown beside: a part whose two figures differ by much is flagged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Table

from analysis.attribution import contrasts, interactions, shapley, subsets
from analysis.runs import Run, differences, explain, find
from analysis.statistics import Ratio
from bench.api import UsageError

OFF = {"batching": "sequential", "kv": "recompute", "lora": "unfused"}
ON = {"batching": "paired", "kv": "shared", "lora": "fused"}
DENSE = {**OFF, "lora": "dense"}
NAMES = {"batching": "batching", "kv": "KV handling: prompt and head reuse", "lora": "fused LoRA kernels"}
DISAGREE, NEGLIGIBLE = 0.20, 0.02


@dataclass(frozen=True)
class Part:
    """One rung or feature: its ratio, the seconds of a step it saves by the clock and by the profiled passes (None: no profile).

    `agrees` is whether the two are within 20 % of one another, or both within 2 % of the whole saving.
    """

    name: str
    ratio: Ratio
    saved_s: float
    profiled_s: float | None
    agrees: bool | None


@dataclass(frozen=True)
class Path:
    """The parts' ratios multiply to `total`. `pairs`: interactions of features, above 1 where two help one another."""

    executor: str
    kv: str
    first: Run
    last: Run
    parts: tuple[Part, ...]
    pairs: Mapping[str, Ratio]
    total: Ratio

    @property
    def title(self) -> str:
        spec, device = self.first.spec, self.first.result.environment.get("device")
        how = "like for like, kv=recompute everywhere" if self.kv == "recompute" else "everything on"
        return f"{spec['workload']}, {spec['model']}, {device}, features of {self.executor}: {how}"


def paths(runs: Iterable[Run]) -> list[Path]:
    """Of every interleaved run among these, for each executor with a full factorial: the like-for-like path and the full one."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.unit == "block" and run.result.pair_id and run.sessions:
            groups.setdefault(run.result.pair_id, []).append(run)
    found = []
    for group in groups.values():
        _refuse_mixtures(group)
        for executor in ("eager", "vllm"):
            if all(
                _point(group, executor, kv="shared", batching=b, lora=lo) for b in _values("batching") for lo in _values("lora")
            ):
                found += [_path(group, executor, kv) for kv in ("recompute", "shared")]
    return found


def print_path(path: Path, console: Console) -> None:
    """One table: every part with its ratio and interval, and what the profiled passes say of it."""
    table = Table("part", "ratio", "95 % CI", "saves, ms", "profiled, ms", title=path.title, caption=_caption(path), min_width=90)
    for part in path.parts:
        profiled = "-" if part.profiled_s is None else f"{part.profiled_s * 1e3:.1f}" + ("" if part.agrees else " (differs)")
        table.add_row(part.name, f"{part.ratio.value:.2f}", _interval(part.ratio), f"{part.saved_s * 1e3:.1f}", profiled)
    table.add_section()
    table.add_row(f"{path.first.label} to {path.last.label}", f"{path.total.value:.2f}", _interval(path.total), "", "")
    console.print(table)


def _path(group: list[Run], executor: str, kv: str) -> Path:
    factors = ["batching", "lora"] + (["kv"] if kv == "shared" else [])
    square = {chosen: _point(group, executor, **{f: (ON if f in chosen else OFF)[f] for f in ON}) for chosen in subsets(factors)}
    corners = [run for run in square.values() if run]
    before = _chain(_before(group, executor, corners[0]))
    after = _chain([("", corners[-1]), *_after(group, executor, kv)])
    runs = list(dict.fromkeys([run for _, run in before] + corners + [run for _, run in after]))
    at = {run: i for i, run in enumerate(runs)}

    def between(start: Run, end: Run) -> np.ndarray:
        row = np.zeros(len(runs))
        row[at[end]] += 1
        row[at[start]] -= 1
        return row

    def spread(weights: np.ndarray) -> np.ndarray:
        row = np.zeros(len(runs))
        for weight, run in zip(weights, corners, strict=True):
            row[at[run]] += weight
        return row

    names = [name for name, _ in before[1:]] + [NAMES[f] for f in factors] + [name for name, _ in after[1:]]
    rows = [between(a, b) for (_, a), (_, b) in pairwise(before)]
    rows += [spread(weights) for weights in shapley(factors)]
    rows += [between(a, b) for (_, a), (_, b) in pairwise(after)]
    pairs = [f"{NAMES[a]} and {NAMES[b]}" for i, a in enumerate(factors) for b in factors[i + 1 :]]
    extra = [spread(weights) for weights in interactions(factors)] + [between(before[0][1], after[-1][1])]
    ratios = contrasts([run.sample for run in runs], np.vstack([*rows, *extra]))
    parts = _parts(names, ratios, np.vstack(rows), runs)
    return Path(
        executor, kv, before[0][1], after[-1][1], parts, dict(zip(pairs, ratios[len(rows) : -1], strict=True)), ratios[-1]
    )


def _before(group: list[Run], executor: str, off: Run) -> list[tuple[str, Run | None]]:
    stations: list[tuple[str, Run | None]] = [
        ("", find(group, executor="official")),
        ("loop overhead: temporaries, logits at every position", _point(group, "eager", **DENSE)),
    ]
    if executor == "vllm":
        stations.append(("adapter form: weights stay", _point(group, "eager", **OFF)))
        return [*stations, ("runtime: vLLM for eager PyTorch", off)]
    return [*stations, ("adapter form: weights stay", off)]


def _after(group: list[Run], executor: str, kv: str) -> list[tuple[str, Run | None]]:
    on = {"batching": "paired", "kv": kv, "lora": "fused"}
    compiled = find(group, executor="vllm", loop="resident", variant="", **on) if _varies(group) else None
    if executor == "vllm":
        return [("torch.compile and CUDA graphs", compiled)]
    requests = find(group, executor="vllm", loop="requests", **on)
    resident = _point(group, "vllm", **on)
    scheduler = ("scheduler: resident steps for requests", resident)
    return [("runtime: vLLM requests", requests), scheduler, ("torch.compile and CUDA graphs", compiled)]


def _chain(stations: Sequence[tuple[str, Run | None]]) -> list[tuple[str, Run]]:
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
    clock = -rows @ np.array([np.median(list(run.sample.values())) for run in runs])
    spans = [(run.finding("time_breakdown") or {}).get("span_s") for run in runs]
    found = []
    for i, name in enumerate(names):
        known = all(spans[j] is not None for j in np.flatnonzero(rows[i]))
        profiled = float(-rows[i] @ np.array([span or 0.0 for span in spans])) if known else None
        small = NEGLIGIBLE * np.abs(clock).sum()
        agrees = None if profiled is None else bool(abs(profiled - clock[i]) <= max(DISAGREE * abs(clock[i]), small))
        found.append(Part(name, ratios[i], float(clock[i]), profiled, agrees))
    return tuple(found)


def _point(group: list[Run], executor: str, **features: str) -> Run | None:
    """A point of the factorial: resident and uncompiled on vllm."""
    chosen = {"loop": "resident", "variant": "uncompiled" if _varies(group) else ""} if executor == "vllm" else {}
    return find(group, executor=executor, **features, **chosen)


def _varies(group: list[Run]) -> bool:
    return any(run.variant for run in group)


def _values(feature: str) -> tuple[str, str]:
    return OFF[feature], ON[feature]


def _refuse_mixtures(group: list[Run]) -> None:
    for run in group:
        if run.incorrect:
            raise UsageError(f"{run.path}: its losses are wrong; timings of wrong losses are not attributed")
        found = differences(group[0], run)
        if found:
            raise UsageError(f"{run.path}: cannot stand beside {group[0].path}: they differ in {explain(found)}")


def _interval(ratio: Ratio) -> str:
    return "" if ratio.low is None else f"{ratio.low:.2f} to {ratio.high:.2f}"


def _caption(path: Path) -> str:
    n = f"n = {path.total.n} blocks a point; the ratios multiply to the last line"
    helps = [f"{name}: {r.value:.2f} {_interval(r)}" for name, r in path.pairs.items()]
    return "\n".join([n, *(f"interaction of {text}" for text in helps)])
