"""From a path to the tables of its splits: what a task calls, and all it needs to know of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from workloads.rows.files import DataFile, find_files
from workloads.rows.separated import read_separated
from workloads.rows.structured import read_columns, read_json
from workloads.rows.table import DataOptions, Row, Table, renamed

MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""How files in other encodings than UTF-8 begin. The longer marks first: one begins with another."""


@dataclass(frozen=True)
class Tables:
    """The splits of a path. validation: None where there is none; left_out: files beside them that were not read."""

    train: Table
    validation: Table | None
    left_out: tuple[str, ...] = ()


def read_tables(path: str | Path, columns: Sequence[str], options: DataOptions | None = None) -> Tables:
    """Read a file (the train split), or a folder's train and validation splits. Every row has `columns`, the task's needs.

    Values of csv and tsv are text; JSON, parquet and arrow keep numbers, lists and nested values. `workloads.rows.values`
    turns them into texts and labels. UsageError, one line, for whatever cannot be read as it was meant.
    """
    options, path = options or DataOptions(), Path(path)
    if unknown := set(options.columns) - {*columns}:
        raise UsageError(f"--column {min(unknown)}=...: the task has no such column; it has {', '.join(columns)}")
    files = find_files(path)
    tables = {
        split: read_files(files.splits[split], columns, options) for split in ("train", "validation") if split in files.splits
    }
    tests = tuple(file.path.name for file in files.splits.get("test", ()))
    return Tables(tables["train"], tables.get("validation"), (*tests, *files.left_out))


def read_files(files: Sequence[DataFile], columns: Sequence[str], options: DataOptions) -> Table:
    """The shards of one split as one table."""
    parts = [_one(file, columns, options) for file in files]
    rows = tuple(row for part in parts for row in part.rows)
    warnings = tuple(text for part in parts for text in part.warnings)
    names = [part.label_names for part in parts]
    if any(other != names[0] for other in names):
        raise UsageError(f"--data {files[0].path.parent}: its shards name their labels differently; write them again together")
    return Table(rows, warnings, names[0])


def _one(file: DataFile, columns: Sequence[str], options: DataOptions) -> Table:
    where = str(file.path)
    content = file.read()
    if not content:
        raise UsageError(f"--data {where}: the file is empty")
    if file.kind in (".parquet", ".arrow"):
        table = read_columns(content, file.kind, where)
    else:
        text = _decoded(content, options.encoding, where)
        if file.kind in (".json", ".jsonl"):
            table = read_json(text, where)
        else:
            table = read_separated(text, "\t" if file.kind == ".tsv" else ",", where)
    if not table.rows:
        raise UsageError(f"--data {where}: the file is empty: it holds no row")
    table = renamed(table, options.columns, where)
    for row in table.rows:
        if missing := next((name for name in columns if name not in row.values), None):
            raise UsageError(f"--data {where}: {_missing(missing, row)}")
    return table


def _missing(name: str, row: Row) -> str:
    found = ", ".join(map(repr, row.values)) or "none"
    place = "" if row.number == 1 else f"{row.place}: "
    return f"{place}no column {name!r}; found {found}; the first row names the columns; --column {name}=... says which is meant"


def _decoded(content: bytes, encoding: str | None, where: str) -> str:
    if encoding is None:
        for mark, name in MARKS.items():
            if content.startswith(mark):
                raise UsageError(f"--data {where}: the file is {name.upper()}, expected UTF-8; say --encoding {name}")
    try:
        text = content.decode(encoding or "utf-8")
    except LookupError:
        raise UsageError(f"--encoding {encoding}: not known; try utf-8, utf-16, latin-1 or cp1252") from None
    except UnicodeError as error:
        line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
        hint = "" if encoding else "; say --encoding latin-1 or cp1252 if it is one of these"
        raise UsageError(f"--data {where}: line {line} is no text in {encoding or 'UTF-8'}{hint}") from None
    if "\0" in text:
        advice = "say --encoding utf-16-le or utf-16-be if it is one of these" if encoding is None else "try another --encoding"
        raise UsageError(f"--data {where}: it holds zero bytes, which text has not; {advice}")
    return text.removeprefix("\ufeff")
