"""From a path to the tables of its splits: what a task calls, and all it needs to know of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from workloads.rows.files import DataFile, find_files
from workloads.rows.separated import read_separated
from workloads.rows.structured import read_columns, read_json
from workloads.rows.table import DataOptions, Row, Table, listed, renamed

MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""How files in other encodings than UTF-8 begin. The longer marks first: one begins with another."""

OTHERS = {
    b"PAR1": (".parquet", "a parquet file; name it .parquet"),
    b"ARROW1": (".arrow", "an arrow file; name it .arrow"),
    b"\x1f\x8b": ("", "compressed; add .gz to its name"),
    b"\x28\xb5\x2f\xfd": ("", "compressed; add .zst to its name"),
    b"BZh9": ("", "compressed; add .bz2 to its name"),
    b"\xfd7zXZ": ("", "compressed; add .xz to its name"),
    b"PK\x03\x04": ("", "a zip archive; unpack it"),
    b"version https://git-lfs": ("", "a pointer of Git LFS, not the data; run git lfs pull"),
    b"<!DOCTYPE": ("", "a web page, not the data; download the file itself"),
}
"""How files begin that are often found under a wrong name."""


@dataclass(frozen=True)
class Tables:
    """The splits of a path. validation: None where there is none; left_out: files beside them that were not read."""

    train: Table
    validation: Table | None
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_tables(path: str | Path, columns: Sequence[str], options: DataOptions | None = None) -> Tables:
    """Read a file (the train split), or a folder's train and validation splits. Every row has `columns`, the task's needs.

    Values of csv and tsv are text; JSON, parquet and arrow keep numbers, lists and nested values. `workloads.rows.values`
    turns them into texts and labels. UsageError, one line, for whatever cannot be read as it was meant.
    """
    options, path = options or DataOptions(), Path(path)
    if unknown := set(options.columns) - {*columns}:
        raise UsageError(f"--column {min(unknown)}=...: the task has no such column; it has {', '.join(columns)}")
    files = find_files(path)
    tables = {split: read_files(shards, columns, options) for split, shards in files.splits.items()}
    warnings = [*files.warnings, *(text for table in tables.values() for text in table.warnings)]
    return Tables(tables["train"], tables.get("validation"), files.left_out, tuple(warnings))


def read_files(files: Sequence[DataFile], columns: Sequence[str], options: DataOptions) -> Table:
    """The shards of one split as one table."""
    parts = [_one(file, columns, options) for file in files]
    rows = tuple(row for part in parts for row in part.rows)
    warnings = tuple(text for part in parts for text in part.warnings)
    if not rows:
        raise UsageError(f"--data {files[0].path}: the file is empty: it holds no row")
    names = [part.label_names for part in parts]
    if any(other != names[0] for other in names):
        raise UsageError(f"--data {files[0].path.parent}: its shards name their labels differently; write them again together")
    return Table(rows, warnings, names[0])


def _one(file: DataFile, columns: Sequence[str], options: DataOptions) -> Table:
    where = str(file.path)
    content = file.read()
    if not content:
        raise UsageError(f"--data {where}: the file is empty")
    for beginning, (kind, advice) in OTHERS.items():
        if content.startswith(beginning) and kind != file.kind:
            raise UsageError(f"--data {where}: that is {advice}")
    if file.kind in (".parquet", ".arrow"):
        table = read_columns(content, file.kind, where)
    else:
        text = _decoded(content, options.encoding, where)
        if file.kind in (".json", ".jsonl", ".ndjson"):
            table = read_json(text, where)
        else:
            table = read_separated(text, "\t" if file.kind == ".tsv" else ",", where)
    table = renamed(table, options.columns, where)
    for row in table.rows:
        if missing := next((name for name in columns if name not in row.values), None):
            raise UsageError(f"--data {where}: {_missing(missing, row, file.kind)}")
    return table


def _missing(name: str, row: Row, kind: str) -> str:
    place = "" if row.number == 1 else f"{row.place}: "
    header = "; the first row names the columns" if kind in (".csv", ".tsv") else ""
    alike = next((other for other in row.values if other.casefold() == name.casefold()), "...")
    return f"{place}no column {name!r}; found {listed(row.values)}{header}; --column {name}={alike} says which is meant"


def _decoded(content: bytes, encoding: str | None, where: str) -> str:
    if encoding is None:
        for mark, name in MARKS.items():
            if content.startswith(mark):
                raise UsageError(f"--data {where}: the file is {name.upper()}, expected UTF-8; say --encoding {name}")
    try:
        text = content.decode(encoding or "utf-8")
    except (LookupError, ValueError) as error:
        if isinstance(error, UnicodeError):
            raise UsageError(f"--data {where}: {_undecoded(content, encoding, error)}") from None
        raise UsageError(f"--encoding {encoding}: not known; try utf-8, utf-16, latin-1 or cp1252") from None
    if "\0" in text:
        advice = "say --encoding utf-16-le or utf-16-be if it is one of these" if encoding is None else "try another --encoding"
        raise UsageError(f"--data {where}: it holds zero bytes, which text has not; {advice}")
    return text.removeprefix("\ufeff")


def _undecoded(content: bytes, encoding: str | None, error: UnicodeError) -> str:
    line = content.count(b"\n", 0, error.start) + 1 if isinstance(error, UnicodeDecodeError) else 1
    hint = "" if encoding else "; say --encoding latin-1 or cp1252 if it is one of these"
    return f"line {line} is no text in {encoding or 'UTF-8'}{hint}"
