"""What each axis of a sweep does to the core step: a table and a figure, ratios within lines of otherwise equal settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

from analysis.figures import COLOURS, MARKERS
from analysis.runs import Run
from analysis.statistics import Ratio, contrasts, ratio
from analysis.summary import milliseconds

matplotlib.use("agg")

Values = Mapping[str, Any]
"""Axis -> value of a point, in the order of the axes."""


@dataclass(frozen=True)
class Row:
    """A point on an axis. beside: the values of the other axes; ratio: the time at the axis's first value over this one's, None
    for the first itself; seconds: the amortised step with its interval, None where nothing was timed."""

    beside: Values
    value: Any
    seconds: Ratio | None
    ratio: Ratio | None


def along(axis: str, points: Iterable[tuple[Values, Run]]) -> list[Row]:
    """Rows in the order of the points; the reference of a line is its first point that was timed."""
    first: dict[tuple[Any, ...], Run] = {}
    rows = []
    for values, run in points:
        beside = {name: value for name, value in values.items() if name != axis}
        if not run.usable:
            rows.append(Row(beside, values[axis], None, None))
            continue
        reference = first.setdefault(tuple(beside.values()), run)
        compared = None if reference is run else ratio(reference.sample, run.sample, run.unit)
        rows.append(Row(beside, values[axis], seconds(run), compared))
    return sorted(rows, key=lambda row: list(first).index(key) if (key := tuple(row.beside.values())) in first else len(first))


def seconds(run: Run) -> Ratio:
    """The amortised step over the units of a run, and the interval of their geometric mean."""
    return contrasts([run.sample], np.array([[-1.0]]), run.unit)[0]


def print_axis(axis: str, rows: Sequence[Row], console: Console) -> None:
    others = list(rows[0].beside)
    table = Table(title=f"Core step along {axis}", caption="ratio: time at the first value of its line / that of the row")
    for heading in (*others, axis):
        table.add_column(heading)
    for heading in ("amortised, ms", "95 % CI, ms", "ratio", "95 % CI"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for row in rows:
        table.add_row(*map(str, row.beside.values()), str(row.value), *_cells(row))
    console.print(table)


def _cells(row: Row) -> tuple[str, ...]:
    if row.seconds is None:
        return "", "", "", "", "not timed"
    took, found = row.seconds, row.ratio
    between = "" if took.low is None else f"{milliseconds(took.low)} to {milliseconds(took.high)}"
    compared = (f"{found.value:.2f}", found.interval, found.verdict) if found else ("", "", "reference")
    return milliseconds(took.value), between, *compared


def draw_axis(axis: str, rows: Sequence[Row], output: Path) -> None:
    """Amortised step over the axis, one line for each setting of the others, with intervals where there are any."""
    import matplotlib.pyplot as plt

    timed = [row for row in rows if row.seconds]
    lines: dict[str, list[Row]] = {}
    for row in timed:
        lines.setdefault(", ".join(f"{name} {value}" for name, value in row.beside.items()), []).append(row)
    values = list(dict.fromkeys(row.value for row in timed))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in values)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, (label, line) in enumerate(lines.items()):
        x = [row.value if numeric else values.index(row.value) for row in line]
        y = np.array([1e3 * row.seconds.value for row in line if row.seconds])
        pairs = [(row.seconds.low, row.seconds.high) for row in line if row.seconds]
        bars = [[0.0 if e is None else abs(1e3 * e - mid) for e in pair] for pair, mid in zip(pairs, y, strict=True)]
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "capsize": 3}
        axes.errorbar(x, y, yerr=np.array(bars).T, label=label or None, **style)
    ends = [1e3 * end for row in timed if (s := row.seconds) for end in (s.value, s.low, s.high) if end is not None]
    axes.set_ylim(0.8 * min(ends), 1.25 * max(ends))
    axes.set(xlabel=axis, ylabel="amortised core step, ms", yscale="log")
    if numeric:
        axes.set(xscale="log" if max(values) >= 4 * min(values) else "linear", xticks=values, xticklabels=list(map(str, values)))
        axes.minorticks_off()
    else:
        axes.set(xticks=range(len(values)), xticklabels=list(map(str, values)), xlim=(-0.5, len(values) - 0.5))
    axes.grid(color="#dddddd", linewidth=0.6)
    if any(lines):
        axes.legend(fontsize=8)
    figure.savefig(output, dpi=150)
    plt.close(figure)
