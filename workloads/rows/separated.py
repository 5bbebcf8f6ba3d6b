"""csv and tsv: the first row names the columns, every value is text, every row has as many fields as the header.

A tsv file is read as GLUE writes it: no quoting at all. A csv file is read with quotes, which are doubled inside quotes.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from bench.errors import UsageError
from workloads.rows.table import Row, Table, listed, shortened

NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
QUOTED = re.compile(r'"(?:[^"]|"")*(?:""|\r)(?:[^"]|"")*"')
"""A field in the manner of csv: quotes around it, and inside doubled ones or a line break."""


@dataclass(frozen=True)
class Record:
    fields: list[str]
    line: int
    lines: int = 1


def read_separated(text: str, separator: str, where: str) -> Table:
    """The rows of a file's text. UsageError where a row cannot be what was meant; a warning where it may not be."""
    records = _tabbed(text) if separator == "\t" else _quoted(text, separator, where)
    header = next(records, None)
    if header is None:
        raise UsageError(f"--data {where}: the file is empty")
    names = [name.strip() for name in header.fields]
    _check_header(names, separator, where)
    rows: list[Row] = []
    doubts: dict[str, list[Row]] = {}
    for number, record in enumerate(records, start=1):
        row = Row(dict(zip(names, record.fields, strict=False)), where, number, record.line)
        if len(record.fields) != len(names):
            raise row.error(_wrong_count(record.fields, names, separator))
        if doubt := _doubt(record, separator):
            doubts.setdefault(doubt, []).append(row)
        rows.append(row)
    return Table(tuple(rows), tuple(_warning(doubt, found, where) for doubt, found in doubts.items()))


def _tabbed(text: str) -> Iterator[Record]:
    lines = text.split("\n") if "\n" in text else text.split("\r")
    end = "\r" if all(line.endswith("\r") for line in lines[:-1]) else ""
    for number, line in enumerate(lines, start=1):
        if line.strip("\r"):
            yield Record(line.removesuffix(end).split("\t"), number)


def _quoted(text: str, separator: str, where: str) -> Iterator[Record]:
    """Records of the csv module, which is asked to refuse what it would have to guess."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number, line = 0, 1
    before = csv.field_size_limit(sys.maxsize)
    try:
        for fields in reader:
            if fields:
                yield Record(fields, line, reader.line_num - line + 1)
                number += 1
            line = reader.line_num + 1
    except csv.Error as error:
        place = f"row {number} (line {line})" if number else "the header"
        raise UsageError(f"--data {where}: {place}: {_reason(str(error), text, line)}") from None
    finally:
        csv.field_size_limit(before)


def _reason(error: str, text: str, line: int) -> str:
    if "unexpected end" in error:
        return "a quote is opened there and never closed; close it, or double a quote that belongs to the text"
    rest = io.StringIO(text, newline="").readlines()[line - 1 :]
    if '\\"' in "".join(rest[:1]):
        return 'a quote inside quotes is written \\"; csv doubles it: ""'
    return 'text follows a closing quote; a quote inside quotes is doubled: ""'


def _check_header(names: list[str], separator: str, where: str) -> None:
    for other, name in NAMES.items():
        if len(names) == 1 and other in names[0]:
            advice = "name it .tsv" if other == "\t" else "name it .csv" if other == "," else f"save it with {NAMES[separator]}"
            raise UsageError(
                f"--data {where}: its header {shortened(names[0])} looks separated by {name}, not {NAMES[separator]}; {advice}"
            )
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UsageError(f"--data {where}: two columns are named {shortened(twice[0])}; rename or remove one")


def _wrong_count(fields: list[str], names: list[str], separator: str) -> str:
    text = f"{len(fields)} field{'s' if len(fields) > 1 else ''}, but the header names {len(names)} ({listed(names)})"
    if len(fields) < len(names):
        return f"{text}; fill in the missing ones"
    if not any(fields[len(names) :]):
        return f"{text}; remove the separator at the end of the row"
    return f"{text}; " + (
        "put quotes around a field that holds a comma" if separator == "," else "name every column in the first row"
    )


LOST = "line breaks and commas inside quotes: if a quote was left open there, the rows after it are lost in it"
ESCAPED = 'a backslash before a quote, which stays a backslash: csv doubles a quote inside quotes, ""'
KEPT = "quotes as csv writes them, which stay in the text of a tsv: rename the file .csv if it was written so"


def _doubt(record: Record, separator: str) -> str | None:
    """What could have been meant otherwise."""
    if separator == "\t":
        return KEPT if any(QUOTED.fullmatch(field) for field in record.fields) else None
    if record.lines > 1 and any(separator in field and ("\n" in field or "\r" in field) for field in record.fields):
        return LOST
    return ESCAPED if any('\\"' in field or field.endswith("\\") for field in record.fields) else None


def _warning(doubt: str, rows: list[Row], where: str) -> str:
    more = f" (as do {len(rows) - 1} more)" if len(rows) > 1 else ""
    return f"{where}: {rows[0].place}{more} holds {doubt}"
