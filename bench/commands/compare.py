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

from analysis.compare import Comparison, Table, compare
from analysis.metrics import metric
from analysis.rendering import cells, comma_separated, headings, markdown, numeric, reference_line
from analysis.runs import load_runs
from bench.commands.terminal import stderr_console
from bench.errors import UsageError


def run_compare(
    paths: Sequence[str | Path],
    *,
    reference: str | None,
    format: str,
    fail_below: float | None,
    every: bool = False,
    by: str = "step",
) -> int:
    """Print the comparison. Exit code 1 when a ratio is below `fail_below` or timings cannot be counted, else 0."""
    if fail_below is not None and not (math.isfinite(fail_below) and fail_below > 0):
        raise UsageError(f"--fail-below {fail_below}: must be a ratio above 0")
    left_out: list[str] = []
    runs = load_runs(paths or ["results"], left_out.append)
    for text in left_out:
        print(f"left out: {text}", file=sys.stderr)
    if not runs:
        whole = "whole result files" if left_out else "result files"
        raise UsageError(f"{', '.join(map(str, paths)) or 'results'}: no {whole}; make some with `python -m bench run`")
    comparison = compare(runs, reference, every, metric(by))
    if format == "markdown":
        print(markdown(comparison))
    elif format == "csv":
        print(comma_separated(comparison), end="")
    elif format == "table":
        print_tables(comparison)
    broken = comparison.fails(fail_below) if fail_below is not None else []
    if fail_below is not None and not any(table.ratios for table in comparison.tables):
        broken.append("no ratio to hold against --fail-below")
    for text in broken:
        print(f"error: {text}", file=sys.stderr)
    if format != "csv":
        print(compact(comparison, left_out, failed=bool(broken)))
    return int(bool(broken))


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
