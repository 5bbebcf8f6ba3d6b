"""Did a change make it slower? Every point of some runs beside the same point of earlier ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.compare import Comparison, Row, Table, row_of
from analysis.metrics import Metric
from analysis.runs import Run, differences, explain
from bench.errors import UsageError


@dataclass(frozen=True)
class Revisions(Table):
    """One point at two commits: the earlier run is the reference."""

    def name(self, run: Run) -> str:
        return f"{super().name(run)} at {commit(run)}"


def against(earlier: Sequence[Run], runs: Sequence[Run], by: Metric) -> Comparison:
    """A table for every point that both have, the newest run of each. UsageError where they share none.

    Sessions that took turns (`compare --revisions`) are compared in pairs, others as independent samples.
    """
    baseline, candidates = _newest(earlier, by), _newest(runs, by)
    tables = []
    for key, run in candidates.items():
        if (base := baseline.get(key)) is None:
            continue
        times = by.times(base.sessions) if base.usable else None
        first = Row(base, by, "reference", times) if times else row_of(base, None, None, by)
        rows = (first, row_of(run, by.times(run.sessions) if run.usable else None, base if times else None, by))
        tables.append(Revisions(base if times else None, rows))
    if not tables:
        raise UsageError(_why_not(list(baseline.values()), list(candidates.values()), by))
    alone = [name for name, key in ((run.label, key) for key, run in candidates.items()) if key not in baseline]
    notes = [f"not in the baseline: {', '.join(sorted(alone))}"] if alone else []
    if any(not row.ratio.paired for table in tables for row in table.rows if row.ratio):
        notes.append("unpaired: measured at different times; `compare --revisions A B` lets both take turns on one machine")
    return Comparison(tuple(tables), tuple(notes))


def commit(run: Run) -> str:
    """The commit a run was made from, `+` where the tree differed from it; the file's name where it is not known."""
    source = run.result.source
    return source["commit"][:8] + ("+" if source.get("dirty") else "") if source.get("commit") else run.path.stem


def _newest(runs: Sequence[Run], by: Metric) -> dict[str, Run]:
    """Identity and point -> the last run of it that says something."""
    ordered = sorted(runs, key=lambda run: (run.usable or run.incorrect, run.result.created))
    return {json.dumps([run.identity(by.own), run.point(by.own)], sort_keys=True): run for run in ordered}


def _why_not(earlier: list[Run], runs: list[Run], by: Metric) -> str:
    if not earlier or not runs:
        where = "to hold against it" if earlier else "there"
        return f"--baseline: no result files {where}; make some with `python -m bench run`"
    alike = [(a, b) for a in earlier for b in runs if a.point(by.own) == b.point(by.own)]
    a, b = alike[-1] if alike else (earlier[-1], runs[-1])
    apart = explain(differences(a, b, by.own)) or f"their points ({a.label}, {b.label})"
    return f"--baseline: no run has its like there; {a.path} and {b.path} differ in {apart}"
