"""Comparisons as text: the cells of a table, Markdown, and CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io

from analysis.compare import Comparison, Row, Table

HEADINGS = ("executor", "features", "n", "amortised, ms", "median, ms", "p95, ms", "p99, ms", "ratio", "95 % CI", "verdict")
NUMERIC = HEADINGS[2:9]


def cells(row: Row) -> tuple[str, ...]:
    """What a table prints, in the order of HEADINGS."""
    spec, summary = row.run.spec, row.summary
    features = ", ".join((*row.run.features, *([spec["loop"]] if spec["executor"] == "vllm" else [])))
    if summary is None:
        return row.run.label, features, *[""] * len(NUMERIC), row.verdict
    times = (summary.amortised if summary.folds_known else None, summary.median, summary.p95, summary.p99)
    n = f"{summary.n} {row.run.unit}{'' if summary.n == 1 else 's'}"
    value = f"{row.ratio.value:.2f}" if row.ratio else ""
    interval = row.ratio.interval + (", unpaired" if row.ratio.interval and not row.ratio.paired else "") if row.ratio else ""
    return row.run.label, features, n, *map(milliseconds, times), value, interval, row.verdict


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else digits(seconds * 1e3)


def digits(value: float, significant: int = 4) -> str:
    """A number with so many digits at least, never in powers of ten."""
    return f"{value:.{significant}g}" if value < 10**significant else f"{value:.0f}"


def reference_line(table: Table) -> str:
    assert table.reference
    return f"Ratio: amortised step of {table.reference.label} / that of the row; above 1 the row is faster."


def markdown(comparison: Comparison) -> str:
    """The tables as GitHub Markdown."""
    blocks = []
    for table in comparison.tables:
        lines = [f"**{table.title}**", ""] + [reference_line(table), ""] * bool(table.reference)
        rule = tuple("---:" if heading in NUMERIC else "---" for heading in HEADINGS)
        lines += ["| " + " | ".join(row) + " |" for row in (HEADINGS, rule, *map(cells, table.rows))]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, *(["\n".join(f"- {note}" for note in comparison.notes)] if comparison.notes else [])])


def comma_separated(comparison: Comparison) -> str:
    """One line a run with everything that the JSON has, the facts of its table first."""
    rows = [
        {key: value for key, value in table.to_json().items() if key != "rows"} | row.to_json()
        for table in comparison.tables
        for row in table.rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
