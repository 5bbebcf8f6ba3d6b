"""The amortised step over the commits that were measured: one line for each point, and what each commit changed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

from analysis.baseline import commit
from analysis.figures import COLOURS, MARKERS
from analysis.losses import name as name_of
from analysis.runs import OWN, Run
from analysis.statistics import Ratio, ratio
from analysis.summary import milliseconds
from analysis.sweep import seconds

matplotlib.use("agg")

VERSIONS = ("torch", "vllm", "driver")
"""What may change in the course of a history."""


@dataclass(frozen=True)
class Entry:
    """A point at a commit: its step, and the time at the commit measured before over this one's, None for the first."""

    line: str
    run: Run
    seconds: Ratio
    change: Ratio | None


def history(runs: Sequence[Run]) -> list[Entry]:
    """Entries by line and commit, of each commit the newest run. Runs without a commit say nothing here."""
    usable = [run for run in runs if run.usable and run.result.source.get("commit")]
    order = _order(usable)
    lines: dict[str, dict[str, Run]] = {}
    for run in sorted(usable, key=lambda run: run.result.created):
        same = {key: value for key, value in run.identity().items() if key not in VERSIONS}
        lines.setdefault(json.dumps([same, run.point()], sort_keys=True), {})[commit(run)] = run
    entries = []
    for line in lines.values():
        before: Run | None = None
        for at in sorted(line, key=order.index):
            run = line[at]
            change = ratio(before.sample, run.sample, run.unit) if before else None
            entries.append(Entry(_name(run, usable), run, seconds(run), change))
            before = run
    return entries


def _name(run: Run, among: Sequence[Run]) -> str:
    words = [name_of(run, among)]
    if run.spec["executor"] == "vllm" or run.unit == "block":
        words += [value for value, key in zip(run.features, OWN[1:], strict=False) if len({r.spec[key] for r in among}) > 1]
    words += [f"batch {run.spec['batch_size']}"] if len({r.spec["batch_size"] for r in among}) > 1 else []
    return ", ".join(words)


def _order(runs: Sequence[Run]) -> list[str]:
    """Commits, oldest first: as git has them, where the working directory is a checkout with all of them, else as measured."""
    found = list(dict.fromkeys(commit(run) for run in sorted(runs, key=lambda run: run.result.created)))
    try:
        command = ["git", "rev-list", "--topo-order", "--reverse", "--all"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return found
    at = {full[:8]: number for number, full in enumerate(listed)}
    known = all(name.rstrip("+") in at for name in found)
    return sorted(found, key=lambda name: (at[name.rstrip("+")], name)) if known else found


def print_history(entries: Sequence[Entry], console: Console) -> None:
    table = Table(title="Amortised core step over commits", caption="ratio: time at the commit before / at this one")
    for heading in ("point", "commit", "measured"):
        table.add_column(heading)
    for heading in ("ms", "95 % CI, ms", "ratio", "95 % CI"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for entry in entries:
        took, change, run = entry.seconds, entry.change, entry.run
        between = "" if took.low is None else f"{milliseconds(took.low)} to {milliseconds(took.high)}"
        compared = (f"{change.value:.2f}", change.interval, change.verdict) if change else ("", "", "first")
        table.add_row(entry.line, commit(run), run.result.created[:8], milliseconds(took.value), between, *compared)
    console.print(table)


def draw(entries: Sequence[Entry], output: Path) -> None:
    """Steps over commits with their intervals; the suffix of `output` says in which format."""
    import matplotlib.pyplot as plt

    order = _order([entry.run for entry in entries])
    figure, axes = plt.subplots(figsize=(max(6, 0.5 * len(order) + 4), 4), layout="constrained")
    for i, line in enumerate(dict.fromkeys(entry.line for entry in entries)):
        mine = [entry for entry in entries if entry.line == line]
        x, y = [order.index(commit(entry.run)) for entry in mine], np.array([1e3 * entry.seconds.value for entry in mine])
        pairs = [(entry.seconds.low, entry.seconds.high) for entry in mine]
        bars = [[0.0 if e is None else abs(1e3 * e - mid) for e in pair] for pair, mid in zip(pairs, y, strict=True)]
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        axes.errorbar(x, y, yerr=np.array(bars).T, label=line, capsize=3, color=colour, marker=marker)
    axes.set(yscale="log", ylabel="amortised core step, ms", xticks=range(len(order)), xlim=(-0.5, len(order) - 0.5))
    axes.set_xticklabels(order, rotation=45, ha="right")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=7)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
    plt.close(figure)
