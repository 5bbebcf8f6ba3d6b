"""Comparisons as text: the cells of a table, Markdown, and CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io

from analysis.compare import Comparison, Row, Table

BEFORE, AFTER = ("executor", "features", "n"), ("ratio", "95 % CI", "verdict")


def headings(table: Table) -> tuple[str, ...]:
    return (*BEFORE, *table.metric.kind.headings, *AFTER)


def numeric(heading: str) -> bool:
    """Whether a column is flush right."""
    return heading not in (*BEFORE[:2], AFTER[-1])


def cells(table: Table, row: Row) -> tuple[str, ...]:
    """What a table prints, in the order of its headings."""
    spec, summary, name = row.run.spec, row.summary, table.name(row.run)
    features = ", ".join((*row.run.features, *([spec["loop"]] if spec["executor"] == "vllm" else [])))
    if summary is None:
        return name, features, *[""] * (len(headings(table)) - 3), row.verdict
    n = f"{summary.n} {row.run.unit}{'' if summary.n == 1 else 's'}"
    value = f"{row.ratio.value:.2f}" if row.ratio else ""
    interval = row.ratio.interval + (", unpaired" if row.ratio.interval and not row.ratio.paired else "") if row.ratio else ""
    return name, features, n, *summary.cells(), value, interval, row.verdict


def reference_line(table: Table) -> str:
    assert table.reference
    return f"Ratio: {table.metric.what} of {table.name(table.reference)} / that of the row; above 1 the row is faster."


def markdown(comparison: Comparison) -> str:
    """The tables as GitHub Markdown."""
    blocks = []
    for table in comparison.tables:
        lines = [f"**{table.title}**", ""] + [reference_line(table), ""] * bool(table.reference)
        rule = tuple("---:" if numeric(heading) else "---" for heading in headings(table))
        rows = (headings(table), rule, *(cells(table, row) for row in table.rows))
        lines += ["| " + " | ".join(row) + " |" for row in rows]
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
