"""Two profiled steps side by side: the buckets, kernels and operators that gained or lost time, and their rooflines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

from analysis.figures import COLOURS, MARKERS
from analysis.runs import Run
from analysis.summary import digits, milliseconds
from bench.errors import UsageError
from bench.recorders.work import read_file
from bench.result import load_result

matplotlib.use("agg")

SHOWN, ROOFED = 12, 8
STEP_KEYS = (("required", "achieved"), ("executed", "achieved_executed"))


@dataclass(frozen=True)
class Side:
    """One profiled step. listed: the findings of the `operators` recorder; roofline: that recorder's, {} where there is none;
    step_s: a timed step, None for a trace without its result."""

    name: str
    listed: Mapping[str, Any]
    roofline: Mapping[str, Any]
    step_s: float | None

    @property
    def buckets(self) -> dict[str, float]:
        """Seconds by bucket, and idle; they add up to the profiled step."""
        found: dict[str, float] = defaultdict(float, self.listed["rest"])
        for row in self.listed["rows"]:
            found[row["bucket"]] += row["seconds"]
        return {**found, "idle": self.listed["idle_s"]}


@dataclass(frozen=True)
class Change:
    """Seconds (and calls) a step of one name on both sides; gained: above 0 where the second side takes less."""

    name: str
    bucket: str
    before: float
    after: float
    calls: tuple[float, float] = (0.0, 0.0)

    @property
    def gained(self) -> float:
        return self.before - self.after


def read_side(path: Path) -> Side:
    """A result file whose profiled pass listed its operators, or a kept trace (with what its result beside it says)."""
    if path.name.endswith((".json.gz", ".trace.json")) or _is_trace(path):
        result = path.parent.parent / "local" / (path.name.removesuffix(".json.gz").rpartition("_")[0] + ".json")
        run = Run(result, load_result(result)) if result.is_file() else None
        roofline = (run.finding("roofline") or {}) if run else {}
        return Side(path.name, read_file(path), roofline, run.summary.value if run and run.sessions else None)
    run = Run(path, load_result(path))
    found = run.finding("operators")
    if found is None:
        raise UsageError(f"{path}: its profiled pass listed no operators; run it again without --no-profile, or give its trace")
    name = f"{run.spec['workload']} {run.label}, {Path(run.spec['model']).name} ({run.result.id})"
    return Side(name, found, run.finding("roofline") or {}, run.summary.value if run.sessions else None)


def _is_trace(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a trace or a result file") from None
    return b"traceEvents" in head or b"schemaVersion" in head


def bucket_changes(a: Side, b: Side) -> list[Change]:
    before, after = a.buckets, b.buckets
    found = [Change(name, name, before.get(name, 0.0), after.get(name, 0.0)) for name in {**before, **after}]
    return sorted(found, key=lambda change: -abs(change.gained))


def changes(a: Side, b: Side) -> list[Change]:
    """Of every name that has a row on a side, most gained first. What is listed on one side alone counts as 0 on the other."""
    rows: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(lambda: [{}, {}])
    for side, listed in enumerate((a.listed, b.listed)):
        for row in listed["rows"]:
            rows[row["bucket"], row["name"]][side] = row
    found = [
        Change(name, bucket, x.get("seconds", 0.0), y.get("seconds", 0.0), (x.get("calls", 0.0), y.get("calls", 0.0)))
        for (bucket, name), (x, y) in rows.items()
    ]
    return sorted(found, key=lambda change: -change.gained)


@dataclass(frozen=True)
class Roofed:
    """An operator against the ceilings: its floor is the longer of its arithmetic and its memory traffic, seconds a step."""

    name: str
    seconds: float
    flops: float
    bytes: float
    floor_s: float | None

    @property
    def share(self) -> float | None:
        """Of its time, what the ceilings ask for; above 1 where data stayed in caches."""
        return None if self.floor_s is None else self.floor_s / self.seconds


def roofed(side: Side) -> list[Roofed]:
    """The operators with known shapes, longest first."""
    ceilings = side.roofline.get("ceilings")
    found = []
    for row in side.listed["operators"]:
        floor = None
        if ceilings:
            floor = max(row["flops"] / ceilings["matmul_flop_per_s"], row["bytes"] / ceilings["copy_bytes_per_s"])
        found.append(Roofed(row["name"], row["seconds"], row["flops"], row["bytes"], floor))
    return found


def print_diff(a: Side, b: Side, console: Console) -> None:
    console.print(f"A: {a.name}", soft_wrap=True)
    console.print(f"B: {b.name}", soft_wrap=True)
    console.print(_steps(a, b))
    table = Table("bucket", title="By bucket, ms a profiled step", caption="gained: A - B")
    for heading in ("A", "B", "gained"):
        table.add_column(heading, justify="right")
    for change in bucket_changes(a, b):
        table.add_row(change.name, *_times(change))
    console.print(table)
    both = changes(a, b)
    gained = [change for change in both if change.gained > 0][:SHOWN]
    lost = [change for change in reversed(both) if change.gained < 0][:SHOWN]
    for title, found in (("Most gained", gained), ("Most lost", lost)):
        if found:
            console.print(_named(title, found))
    for label, side in (("A", a), ("B", b)):
        if side.listed["operators"]:
            console.print(_roof(label, side))


def _steps(a: Side, b: Side) -> Table:
    table = Table("step", title="The step, and its roofline")
    for heading in ("A", "B"):
        table.add_column(heading, justify="right")
    table.add_row("timed, ms", milliseconds(a.step_s), milliseconds(b.step_s))
    table.add_row("profiled, ms", milliseconds(a.listed["span_s"]), milliseconds(b.listed["span_s"]))
    for bound, achieved in STEP_KEYS:
        words = "at best, ms" if bound == "required" else "at best with the work as configured, ms"
        sides = [side.roofline.get(bound) for side in (a, b)]
        table.add_row(words, *(f"{milliseconds(s['floor_s'])} ({s['binds']})" if s else "-" for s in sides))
        shares = [side.roofline.get(achieved) for side in (a, b)]
        table.add_row("achieved", *("-" if share is None else f"{share:.1%}" for share in shares))
    return table


def _named(title: str, found: Sequence[Change]) -> Table:
    table = Table("name", "bucket", title=f"{title}, ms a profiled step")
    table.columns[0].overflow = "fold"
    for heading in ("A", "B", "gained", "calls A", "calls B"):
        table.add_column(heading, justify="right")
    for change in found:
        table.add_row(change.name, change.bucket, *_times(change), *(f"{count:g}" for count in change.calls))
    return table


def _times(change: Change) -> tuple[str, str, str]:
    return f"{change.before * 1e3:.3f}", f"{change.after * 1e3:.3f}", f"{change.gained * 1e3:+.3f}"


def _roof(label: str, side: Side) -> Table:
    note = "least work of the shapes over its own time; above 100 %: from caches"
    table = Table("operator", title=f"{label}: operators against the ceilings", caption=note)
    for heading in ("ms", "GFLOP/s", "GB/s", "FLOP a byte", "at best, ms", "achieved"):
        table.add_column(heading, justify="right")
    for one in roofed(side)[:ROOFED]:
        rates = (digits(one.flops / one.seconds / 1e9, 3), digits(one.bytes / one.seconds / 1e9, 3))
        share = "-" if one.share is None else f"{one.share:.1%}"
        intensity = digits(one.flops / one.bytes, 3) if one.bytes else "-"
        table.add_row(one.name, f"{one.seconds * 1e3:.3f}", *rates, intensity, milliseconds(one.floor_s), share)
    return table


def draw(a: Side, b: Side, output: Path) -> None:
    """Both steps and their longest products against the ceilings: FLOP/s over FLOP a byte."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for i, (label, side) in enumerate((("A", a), ("B", b))):
        points = [(one.name, one.flops, one.bytes, one.seconds) for one in roofed(side)[:ROOFED] if one.flops and one.bytes]
        if side.roofline and side.step_s:
            least = side.roofline["required"]
            points.insert(0, ("whole step", least["flops"], least["bytes"], side.step_s))
            top, slope = (side.roofline["ceilings"][key] for key in ("matmul_flop_per_s", "copy_bytes_per_s"))
            x = np.geomspace(0.1, 1e4, 100)
            axes.plot(x, np.minimum(top, slope * x) / 1e9, color=COLOURS[i], linewidth=1, label=f"{label}: ceilings")
        for j, (name, flops, size, seconds) in enumerate(points):
            style: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[j % len(MARKERS)], "linestyle": "none"}
            style |= {"fillstyle": "full" if i == 0 else "none"}
            axes.plot(flops / size, flops / seconds / 1e9, label=f"{label}: {name}", **style)
    axes.set(xscale="log", yscale="log", xlabel="FLOP a byte, least work of the shapes", ylabel="GFLOP/s of that work")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
    plt.close(figure)
