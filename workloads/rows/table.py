"""What reading gives: rows in the file's own columns. Every row knows where it stands, so that a message can say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.errors import UsageError

SHOWN = 10


def listed(names: Iterable[object]) -> str:
    """Names for a message of one line."""
    found = [shortened(name) for name in names]
    return ", ".join(found[:SHOWN] + ["..."] * (len(found) > SHOWN)) or "none"


def shortened(value: object) -> str:
    """A value for a message of one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `row["sentence"]` is its value, text in csv and tsv, whatever was written in JSON and parquet.

    number: from 1, the header not counted; line: where it begins in a file of text, from 1.
    """

    values: Mapping[str, Any]
    file: str
    number: int
    line: int | None = None

    def __getitem__(self, column: str) -> Any:
        if column not in self.values:
            raise self.error(f"no column {column!r}; found {listed(self.values)}")
        return self.values[column]

    def error(self, text: str) -> UsageError:
        """What is wrong with this row, to be raised."""
        return UsageError(f"--data {self.file}: {self.place}: {text}")

    @property
    def place(self) -> str:
        return f"row {self.number}" + (f" (line {self.line})" if self.line not in (None, self.number) else "")


@dataclass(frozen=True)
class Table:
    """The rows of one split, shard after shard. label_names: by column, the words that the file itself gives its numbers."""

    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class DataOptions:
    """How the user's files are to be understood. columns: the task's column -> the file's; labels: the words for 0, 1, ..."""

    encoding: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def spoken(self) -> str:
        """The first of its options that is given; "" where none is."""
        given = {"--column": self.columns, "--labels": self.labels, "--encoding": self.encoding}
        return next((name for name, value in given.items() if value), "")

    @classmethod
    def parse(cls, encoding: str | None, columns: Sequence[str], labels: str | None) -> DataOptions:
        """From the command line: utf-16, ["sentence=text"], "negative,positive"."""
        renamed: dict[str, str] = {}
        for given in columns:
            ours, separator, theirs = given.partition("=")
            if not separator or not ours or not theirs:
                raise UsageError(f"--column {given}: expected TASK'S=FILE'S, as in sentence=text")
            if ours in renamed:
                raise UsageError(f"--column {given}: {ours} has a column already, {renamed[ours]}; give it once")
            renamed[ours] = theirs
        words = tuple(word.strip() for word in labels.split(",")) if labels is not None else ()
        if labels is not None and (not all(words) or len({word.casefold() for word in words}) < len(words)):
            raise UsageError(f"--labels {labels}: expected different words for 0, 1, ..., as in negative,positive")
        return cls(encoding, renamed, words)


def renamed(table: Table, columns: Mapping[str, str], where: str) -> Table:
    """The table with the task's names of columns for the file's own. Source of `columns`: --column."""
    if not columns:
        return table
    rows = []
    for row in table.rows:
        for ours, theirs in columns.items():
            if theirs not in row.values:
                found = listed(row.values)
                raise UsageError(f"--column {ours}={theirs}: {where}: {row.place} has no column {theirs!r}; found {found}")
        taken = {*columns, *columns.values()}
        kept = {name: value for name, value in row.values.items() if name not in taken}
        rows.append(replace(row, values=kept | {ours: row.values[theirs] for ours, theirs in columns.items()}))
    names = {ours: table.label_names[theirs] for ours, theirs in columns.items() if theirs in table.label_names}
    kept_names = {name: words for name, words in table.label_names.items() if name not in {*columns, *columns.values()}}
    return replace(table, rows=tuple(rows), label_names=kept_names | names)
