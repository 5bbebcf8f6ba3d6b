"""Which runs may be compared, against what, and how the ratios come out.

Runs are grouped by workload, model and device, and within a group by everything else that has to be equal (`Run.identity`).
From a folder the newest run of each point counts; files named one by one all count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from analysis.metrics import METRICS, Metric
from analysis.runs import Run, differences, explain, size_of
from analysis.serving import Served
from analysis.statistics import ENOUGH, Ratio, ratio
from analysis.summary import Summary, ToTarget
from bench.errors import UsageError

WIDE = 0.10
FEW = {"session": "sessions", "block": "rounds"}
"""Unit -> the option that asks for more of them."""


@dataclass(frozen=True)
class Row:
    """One run beside the reference. `summary` is None where timings are refused or missing, `ratio` also for the reference."""

    run: Run
    metric: Metric
    verdict: str
    summary: Summary | ToTarget | Served | None = None
    ratio: Ratio | None = None

    def to_json(self) -> dict[str, Any]:
        run, found, summary = self.run, self.ratio, self.summary
        return {
            "workload": run.spec["workload"],
            "executor": run.spec["executor"],
            **dict(zip(("batching", "kv", "lora"), run.features, strict=True)),
            "loop": run.spec["loop"],
            "variant": run.variant or None,
            "status": run.result.status,
            "n": summary.n if summary else 0,
            "unit": run.unit,
            **(summary.to_json() if summary else dict.fromkeys(self.metric.kind.keys)),
            "ratio": found.value if found else None,
            "ratio_low": found.low if found else None,
            "ratio_high": found.high if found else None,
            "paired": found.paired if found else None,
            "verdict": self.verdict,
            "path": str(run.path),
        }


@dataclass(frozen=True)
class Table:
    """Runs that may be compared with one another; `reference` is None when none of them has timings."""

    reference: Run | None
    rows: tuple[Row, ...]

    @property
    def metric(self) -> Metric:
        return self.rows[0].metric

    @property
    def title(self) -> str:
        spec = self.rows[0].run.spec
        words = [] if "workload" in self.metric.own else [spec["workload"]]
        words += [
            spec["model"],
            str(self.rows[0].run.result.environment.get("device")),
            f"{spec['weights']} weights",
            spec["dtype"],
        ]
        if "workload" in self.metric.own:
            return ", ".join([*words, spec["task"], str(spec["until"])])
        several = f" x {found}" if (found := spec.get("accumulate", 1)) > 1 else ""
        words.append(f"batch {spec['batch_size']}{several}")
        if self.rows[0].run.rank is not None:
            words.append(f"rank {self.rows[0].run.rank}")
        if rate := spec.get("users_per_s"):
            words.append(f"{rate:g} users/s")
        return ", ".join(words)

    def name(self, run: Run) -> str:
        """What a row is called: with its workload where there are several."""
        return f"{run.spec['workload']}, {run.label}" if "workload" in self.metric.own else run.label

    @property
    def ratios(self) -> list[Ratio]:
        return [row.ratio for row in self.rows if row.ratio]

    def to_json(self) -> dict[str, Any]:
        spec = self.rows[0].run.spec
        keys = ("workload", "model", "weights", "dtype", "batch_size", "rank")
        return {key: spec[key] for key in keys} | {
            "device": self.rows[0].run.result.environment.get("device"),
            "reference": self.name(self.reference) if self.reference else None,
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

    @property
    def slower(self) -> list[str]:
        """Which runs are slower than their reference beyond doubt, or cannot be counted, in words."""
        found = []
        for table in self.tables:
            for row in table.rows:
                if row.summary is None or (row.ratio and row.ratio.different and row.ratio.value < 1):
                    found.append(f"{table.name(row.run)}: {row.verdict} ({row.run.path})")
        return found


def compare(runs: Sequence[Run], reference: str | None = None, every: bool = False, by: Metric = METRICS["step"]) -> Comparison:
    """Tables for the runs; the reference is that executor (official unless said), or the slowest run where it is absent.

    UsageError when an executor asked for by name is in no table, or when of several timed runs no two may be compared.
    """
    tuning = {run for run in runs if run.spec.get("tuning") and not (run.named or every)}
    runs = [run for run in runs if run not in tuning]
    groups = [list(group) for _, group in groupby(sorted(runs, key=_group(by)), key=_group(by))]
    parts = [_newest(part, every, by) for group in groups for part in _comparable(group, by)]
    tables = [_table(chosen, reference, by) for chosen, _ in parts]
    asked = [table for table in tables if table.reference and _is(table.reference, reference)]
    if reference and runs and not asked:
        present = sorted({run.spec["executor"] for run in runs if run.usable})
        raise UsageError(f"--reference {reference}: no timed run of it; there are {', '.join(present) or 'none at all'}")
    _refuse_if_nothing_compares(tables)
    left_out = sum(map(len, groups)) - sum(len(chosen) for chosen, _ in parts)
    notes = [f"{left_out} older or failed runs of the same points are left out; --all shows them"] if left_out else []
    notes += [f"{len(tuning)} runs that a race picked its settings by are left out; --all shows them"] if tuning else []
    notes += [note for _, newer in parts for note in newer]
    return Comparison(tuple(tables), (*notes, *_notes(tables)))


def _group(by: Metric) -> Callable[[Run], tuple]:
    def key(run: Run) -> tuple[str, tuple[float, str], str]:
        workload = "" if "workload" in by.own else run.spec["workload"]
        return workload, size_of(run.spec["model"]), str(run.result.environment.get("device"))

    return key


def _comparable(group: list[Run], by: Metric) -> list[list[Run]]:
    """Parts of a group with one identity each."""
    parts: dict[str, list[Run]] = {}
    for run in group:
        parts.setdefault(json.dumps(run.identity(by.own), sort_keys=True), []).append(run)
    return list(parts.values())


def _newest(part: list[Run], every: bool, by: Metric) -> tuple[list[Run], list[str]]:
    """Each point's newest run that has something to say, and notes on newer ones that failed."""
    kept = [run for run in part if every or run.named]
    notes: list[str] = []
    points: dict[tuple[str, ...], list[Run]] = {}
    for run in part:
        if not (every or run.named):
            points.setdefault(run.point(by.own), []).append(run)
    for found in points.values():
        chosen = ([run for run in found if by.counts(run) or run.incorrect] or found)[-1]
        kept.append(chosen)
        notes += [f"{run.path}: newer, but {run.result.status}" for run in found[found.index(chosen) + 1 :]]
    return kept, notes


def _table(runs: list[Run], wanted: str | None, by: Metric) -> Table:
    times = {run: by.times(by.of(run)) if by.counts(run) else None for run in runs}
    known = {run: found for run, found in times.items() if found}
    among = [run for run in known if _is(run, wanted or by.reference)] or list(known)
    newest = {run.point(by.own): run for run in among}.values()
    reference = max(newest, key=lambda run: known[run].value, default=None)
    rows = [row_of(run, times[run], reference, by) for run in runs]
    return Table(reference, tuple(sorted(rows, key=_order)))


def _is(run: Run, wanted: str | None) -> bool:
    """Whether a run is of the executor (or, of several algorithms, the workload; of a server, the policy) that was asked for."""
    return wanted in (run.spec["executor"], run.spec["workload"], run.admission or run.spec["executor"])


def _order(row: Row) -> tuple[bool, float]:
    """The reference, the slowest, ..., the fastest, what has no timings."""
    return row.verdict != "reference", -row.summary.value if row.summary else 0.0


def row_of(run: Run, times: Summary | ToTarget | Served | None, reference: Run | None, by: Metric) -> Row:
    """A run beside the reference; why not, where timings are refused or missing."""
    if run.incorrect:
        return Row(run, by, "refused: its losses are wrong")
    if times is None or reference is None:
        errors = [session.error for session in run.result.sessions if session.error]
        return Row(run, by, f"{run.result.status}: {errors[-1] if errors else by.missing}")
    if run is reference:
        return Row(run, by, "reference", times)
    if found := differences(reference, run, by.own):
        return Row(run, by, f"not comparable: {explain(found)}", times)
    compared = ratio(by.sample(reference), by.sample(run), run.unit)
    return Row(run, by, compared.verdict, times, compared)


def _refuse_if_nothing_compares(tables: Iterable[Table]) -> None:
    timed = [(table, row.run) for table in tables for row in table.rows if row.summary]
    if len(timed) < 2 or any(table.ratios for table, _ in timed):
        return
    a, b = timed[0][1], timed[-1][1]
    found = explain(differences(a, b, timed[0][0].metric.own))
    raise UsageError(f"{a.path} and {b.path} cannot be compared, they differ in {found}")


def _notes(tables: list[Table]) -> Iterable[str]:
    """What the reader should know and do: incomparable neighbours, wide spreads, few sessions, unpaired ratios."""
    for first, second in pairwise(tables):
        a, b = first.rows[0].run, second.rows[0].run
        if _group(first.metric)(a) == _group(first.metric)(b):
            name, keys = f"{a.spec['workload']}, {a.spec['model']}", explain(differences(a, b, first.metric.own))
            yield f"{name}: kept in tables of their own, they differ in {keys}"
    timed = [(table.name(row.run), row.run, row.summary) for table in tables for row in table.rows if row.summary]
    for name, run, summary in timed:
        if lost := len(run.result.sessions) - summary.n:
            yield f"{name}: {lost} of {len(run.result.sessions)} {run.unit}s did not pass and are left out"
    if wide := [name for name, _, summary in timed if summary.spread > WIDE]:
        yield f"spread over {WIDE:.0%}, close other programs or run more of them: {', '.join(wide)}"
    if blind := [name for name, _, summary in timed if not summary.folds_known]:
        yield f"folds of the accumulated state are left out, none was timed or recorded: {', '.join(blind)}"
    compared = [row for table in tables for row in table.rows if row.ratio]
    if few := next((row.run.unit for row in compared if row.ratio and row.ratio.n < ENOUGH), None):
        yield f"fewer than {ENOUGH} {few}s give a ratio without an interval; run with --{FEW[few]} {ENOUGH} or more"
    if any(row.ratio and not row.ratio.paired for row in compared):
        yield "unpaired: sessions did not alternate; give both executors to one `run` (--executor A --executor B) to pair them"
