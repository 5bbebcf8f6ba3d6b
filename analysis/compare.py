"""Which runs may be compared, against what, and how the ratios come out.

Runs are grouped by workload, model and device, and within a group by everything else that has to be equal (`Run.identity`).
From a folder the newest run of each point counts; files named one by one all count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from analysis.runs import Run, differences, explain, size_of
from analysis.statistics import ENOUGH, Ratio, Summary, ratio, summarize
from bench.errors import UsageError

WIDE = 0.10
HEADINGS = ("executor", "features", "n", "median, ms", "IQR, ms", "ratio", "95 % CI", "verdict")


@dataclass(frozen=True)
class Row:
    """One run beside the reference. `summary` is None where timings are refused or missing, `ratio` also for the reference."""

    run: Run
    verdict: str
    summary: Summary | None = None
    ratio: Ratio | None = None

    def cells(self) -> tuple[str, ...]:
        """What a table prints, in the order of HEADINGS."""
        spec = self.run.spec
        features = ", ".join((*self.run.features, *([spec["loop"]] if spec["executor"] == "vllm" else [])))
        if self.summary is None:
            return self.run.label, features, "", "", "", "", "", self.verdict
        median, iqr = self.summary.median * 1e3, self.summary.iqr * 1e3
        n = f"{self.summary.n} {self.run.unit}{'' if self.summary.n == 1 else 's'}"
        value = low_high = ""
        if self.ratio:
            value = f"{self.ratio.value:.2f}"
            if self.ratio.low is not None:
                low_high = f"{self.ratio.low:.2f} to {self.ratio.high:.2f}" + ("" if self.ratio.paired else ", unpaired")
        return self.run.label, features, n, digits(median), digits(iqr, 2), value, low_high, self.verdict

    def to_json(self) -> dict[str, Any]:
        run, found = self.run, self.ratio
        return {
            "executor": run.spec["executor"],
            **dict(zip(("batching", "kv", "lora"), run.features, strict=True)),
            "loop": run.spec["loop"],
            "variant": run.variant or None,
            "status": run.result.status,
            "n": self.summary.n if self.summary else 0,
            "unit": run.unit,
            "step_s_median": self.summary.median if self.summary else None,
            "step_s_q1": self.summary.q1 if self.summary else None,
            "step_s_q3": self.summary.q3 if self.summary else None,
            "ratio": found.value if found else None,
            "ratio_low": found.low if found else None,
            "ratio_high": found.high if found else None,
            "paired": found.paired if found else None,
            "verdict": self.verdict,
            "path": str(run.path),
        }


def digits(value: float, significant: int = 4) -> str:
    """A number with so many digits at least, never in powers of ten."""
    return f"{value:.{significant}g}" if value < 10**significant else f"{value:.0f}"


@dataclass(frozen=True)
class Table:
    """Runs that may be compared with one another; `reference` is None when none of them has timings."""

    reference: Run | None
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        spec = self.rows[0].run.spec
        words = [spec["workload"], spec["model"], str(self.rows[0].run.result.environment.get("device"))]
        words += [f"{spec['weights']} weights", spec["dtype"], f"batch {spec['batch_size']}"]
        if spec["workload"] != "mezo":
            words.append(f"rank {spec['rank']}")
        return ", ".join(words)

    @property
    def ratios(self) -> list[Ratio]:
        return [row.ratio for row in self.rows if row.ratio]

    def to_json(self) -> dict[str, Any]:
        spec = self.rows[0].run.spec
        keys = ("workload", "model", "weights", "dtype", "batch_size", "rank")
        return {key: spec[key] for key in keys} | {
            "device": self.rows[0].run.result.environment.get("device"),
            "reference": self.reference.label if self.reference else None,
            "rows": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True)
class Comparison:
    tables: tuple[Table, ...]
    notes: tuple[str, ...]

    def fails(self, least: float) -> list[str]:
        """Why a threshold on the ratios is not met, in words: a ratio below it, or timings that cannot be counted."""
        found = []
        for row in (row for table in self.tables for row in table.rows):
            if row.ratio and row.ratio.value < least:
                found.append(f"{row.run.label}: ratio {row.ratio.value:.2f} is below {least:g} ({row.run.path})")
            elif row.summary is None:
                found.append(f"{row.run.label}: {row.verdict} ({row.run.path})")
        return found


def compare(runs: Sequence[Run], reference: str | None = None, every: bool = False) -> Comparison:
    """Tables for the runs; the reference is that executor (official unless said), or the slowest run where it is absent.

    UsageError when an executor asked for by name is in no table, or when of several timed runs no two may be compared.
    """
    groups = [list(group) for _, group in groupby(sorted(runs, key=_group), key=_group)]
    parts = [_newest(part, every) for group in groups for part in _comparable(group)]
    tables = [_table(chosen, reference) for chosen, _ in parts]
    asked = [table for table in tables if table.reference and table.reference.spec["executor"] == reference]
    if reference and runs and not asked:
        present = sorted({run.spec["executor"] for run in runs if run.usable})
        raise UsageError(f"--reference {reference}: no timed run of it; there are {', '.join(present) or 'none at all'}")
    _refuse_if_nothing_compares(tables)
    left_out = sum(len(part) for group in groups for part in _comparable(group)) - sum(len(chosen) for chosen, _ in parts)
    notes = [f"{left_out} older or failed runs of the same points are left out; --all shows them"] if left_out else []
    notes += [note for _, newer in parts for note in newer]
    return Comparison(tuple(tables), (*notes, *_notes(tables)))


def markdown(comparison: Comparison) -> str:
    """The tables as GitHub Markdown."""
    blocks = []
    for table in comparison.tables:
        lines = [f"**{table.title}**", ""] + [reference_line(table), ""] * bool(table.reference)
        rows = [HEADINGS, ("---", "---", "---:", "---:", "---:", "---:", "---", "---"), *(row.cells() for row in table.rows)]
        blocks.append("\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows]))
    return "\n\n".join([*blocks, *(["\n".join(f"- {note}" for note in comparison.notes)] if comparison.notes else [])])


def reference_line(table: Table) -> str:
    assert table.reference
    return f"Ratio: step time of {table.reference.label} / step time of the row; above 1 the row is faster."


def _group(run: Run) -> tuple[str, tuple[float, str], str]:
    return run.spec["workload"], size_of(run.spec["model"]), str(run.result.environment.get("device"))


def _comparable(group: list[Run]) -> list[list[Run]]:
    """Parts of a group with one identity each."""
    parts: dict[str, list[Run]] = {}
    for run in group:
        parts.setdefault(json.dumps(run.identity, sort_keys=True), []).append(run)
    return list(parts.values())


def _newest(part: list[Run], every: bool) -> tuple[list[Run], list[str]]:
    """Each point's newest run that has something to say, and notes on newer ones that failed."""
    kept = [run for run in part if every or run.named]
    notes: list[str] = []
    points: dict[tuple[str, ...], list[Run]] = {}
    for run in part:
        if not (every or run.named):
            points.setdefault(run.point, []).append(run)
    for found in points.values():
        chosen = ([run for run in found if run.usable or run.incorrect] or found)[-1]
        kept.append(chosen)
        notes += [f"{run.path}: newer, but {run.result.status}" for run in found[found.index(chosen) + 1 :]]
    return kept, notes


def _table(runs: list[Run], wanted: str | None) -> Table:
    reference = _reference([run for run in runs if run.usable], wanted)
    rows = [_row(run, reference) for run in runs]
    return Table(reference, tuple(sorted(rows, key=_order)))


def _order(row: Row) -> tuple[bool, float]:
    """The reference, the slowest, ..., the fastest, what has no timings."""
    return row.verdict != "reference", -row.summary.median if row.summary else 0.0


def _reference(usable: list[Run], wanted: str | None) -> Run | None:
    """The slowest of the runs of the executor wanted (newest of each point), else of all."""
    among = [run for run in usable if run.spec["executor"] == (wanted or "official")] or usable
    newest = {run.point: run for run in among}.values()
    return max(newest, key=lambda run: summarize(list(run.sample.values())).median, default=None)


def _row(run: Run, reference: Run | None) -> Row:
    if run.incorrect:
        return Row(run, "refused: its losses are wrong")
    if not run.usable or reference is None:
        errors = [session.error for session in run.result.sessions if session.error]
        return Row(run, f"{run.result.status}: {errors[-1] if errors else 'no timed session'}")
    summary = summarize(list(run.sample.values()))
    if run is reference:
        return Row(run, "reference", summary)
    if found := differences(reference, run):
        return Row(run, f"not comparable: {explain(found)}", summary)
    compared = ratio(reference.sample, run.sample)
    return Row(run, compared.verdict, summary, compared)


def _refuse_if_nothing_compares(tables: Iterable[Table]) -> None:
    timed = [(table, row.run) for table in tables for row in table.rows if row.summary]
    if len(timed) < 2 or any(table.ratios for table, _ in timed):
        return
    a, b = timed[0][1], timed[-1][1]
    raise UsageError(f"{a.path} and {b.path} cannot be compared, they differ in {explain(differences(a, b))}")


def _notes(tables: list[Table]) -> Iterable[str]:
    """What the reader should know and do: incomparable neighbours, wide spreads, few sessions, unpaired ratios."""
    for first, second in pairwise(tables):
        a, b = first.rows[0].run, second.rows[0].run
        if _group(a) == _group(b):
            name, keys = f"{a.spec['workload']}, {a.spec['model']}", explain(differences(a, b))
            yield f"{name}: kept in tables of their own, they differ in {keys}"
    timed = [(row.run, row.summary) for table in tables for row in table.rows if row.summary]
    for run, summary in timed:
        if lost := len(run.result.sessions) - summary.n:
            yield f"{run.label}: {lost} of {len(run.result.sessions)} {run.unit}s did not pass and are left out"
    if wide := [run.label for run, summary in timed if summary.iqr > WIDE * summary.median]:
        yield f"spread over 10 % of the median, close other programs or run more of them: {', '.join(wide)}"
    compared = [row for table in tables for row in table.rows if row.ratio and row.summary]
    if any(row.summary.n < ENOUGH for row in compared if row.summary):
        yield f"fewer than {ENOUGH} sessions give a ratio without an interval; run with --sessions {ENOUGH} or more"
    if any(row.ratio and not row.ratio.paired for row in compared):
        yield "unpaired: sessions did not alternate; give both executors to one `run` (--executor A --executor B) to pair them"
