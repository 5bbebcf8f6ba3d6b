"""`python -m bench compare`: tables of what may be compared.

The table goes to stderr; with --format markdown or csv it goes to stdout instead, for embedding. The last line of stdout is
always one JSON object, with --format json it is all there is, and with --format csv it is left out: a spreadsheet reads it all.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.baseline import against
from analysis.compare import Comparison, Table, compare
from analysis.metrics import metric
from analysis.rendering import cells, comma_separated, headings, markdown, numeric, reference_line
from analysis.runs import Run, load_runs
from bench.commands import revisions as two
from bench.errors import UsageError
from bench.journal.store import Store
from bench.terminal import stderr_console


def run_compare(
    paths: Sequence[str | Path],
    *,
    reference: str | None,
    format: str,
    fail_below: float | None,
    every: bool = False,
    by: str = "step",
    baseline: Sequence[str | Path] = (),
    revisions: tuple[str, str] | None = None,
    rounds: int = 5,
    results: str = "results",
) -> int:
    """Print the comparison. Exit code 1 when a ratio is below `fail_below`, a run is slower than its baseline or timings cannot
    be counted; else 0.

    baseline    results that those of `paths` are held against, point by point
    revisions   two commits that are measured here; `paths` are then what `run` is given
    """
    if fail_below is not None and not (math.isfinite(fail_below) and fail_below > 0):
        raise UsageError(f"--fail-below {fail_below}: must be a ratio above 0")
    if (baseline or revisions) and (reference or every or (baseline and revisions)):
        both = "the earlier run is the reference; leave out --reference and --all, and one of the two"
        raise UsageError(f"--baseline, --revisions: {both}")
    left_out: list[str] = []
    if revisions:
        try:
            earlier, later = two.measure(revisions, list(map(str, paths)), rounds, Store(results), stderr_console())
        except two.SessionFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        comparison = against(earlier, later, metric(by))
    elif baseline:
        comparison = against(_runs(baseline, left_out), _runs(paths or [results], left_out), metric(by))
    else:
        comparison = compare(_runs(paths or [results], left_out), reference, every, metric(by))
    if format == "markdown":
        print(markdown(comparison))
    elif format == "csv":
        print(comma_separated(comparison), end="")
    elif format == "table":
        print_tables(comparison)
    broken = comparison.fails(fail_below) if fail_below is not None else []
    broken += comparison.slower if baseline or revisions else []
    if fail_below is not None and not any(table.ratios for table in comparison.tables):
        broken.append("no ratio to hold against --fail-below")
    for text in dict.fromkeys(broken):
        print(f"error: {text}", file=sys.stderr)
    if format != "csv":
        print(compact(comparison, left_out, failed=bool(broken)))
    return int(bool(broken))


def _runs(paths: Sequence[str | Path], left_out: list[str]) -> list[Run]:
    """Runs of files and folders; what cannot be read is said and added to `left_out`. UsageError where there are none."""
    skipped: list[str] = []
    runs = load_runs(paths, skipped.append)
    for text in skipped:
        print(f"left out: {text}", file=sys.stderr)
    left_out += skipped
    if not runs:
        whole = "whole result files" if skipped else "result files"
        raise UsageError(f"{', '.join(map(str, paths))}: no {whole}; make some with `python -m bench run`")
    return runs


def compact(comparison: Comparison, left_out: Sequence[str] = (), failed: bool = False) -> str:
    """The comparison as one line of JSON."""
    tables = [table.to_json() for table in comparison.tables]
    content = {"status": "failed" if failed else "passed", "tables": tables, "notes": list(comparison.notes)}
    content |= {"left_out": list(left_out)}
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def print_tables(comparison: Comparison) -> None:
    """The tables for people, on stderr."""
    console = stderr_console()
    for table in comparison.tables:
        console.print(rendered(table))
    for note in comparison.notes:
        console.print(f"- {note}", soft_wrap=True)


def rendered(table: Table) -> object:
    """One table for a terminal."""
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, caption=reference_line(table) if table.reference else None)
    for heading in headings(table):
        shown.add_column(heading, justify="right" if numeric(heading) else "left")
    for row in table.rows:
        shown.add_row(*cells(table, row))
    return shown
