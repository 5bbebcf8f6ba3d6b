"""The kinds of columns that tasks have: each turns the values of a table's rows into what the task works with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from workloads.generated import Lengths
from workloads.rows.table import DataOptions, Row, Table
from workloads.rows.values import labels_of, text_of


class Column(Protocol):
    def read(self, table: Table, name: str, options: DataOptions) -> Sequence[Any]:
        """The column's value in every row; UsageError, naming the row, for a value of another kind."""


@dataclass(frozen=True)
class Text:
    """Text, with something in it unless it may be empty. words: how many there usually are, for the stand-in."""

    words: Lengths | None = None
    empty: bool = False

    def read(self, table: Table, name: str, options: DataOptions) -> list[str]:
        return ["" if self.empty and row[name] == "" else text_of(row, name) for row in table.rows]


@dataclass(frozen=True)
class Label:
    """The number of a class. names: the hub's names of 0, 1, ...; also: further words, in small letters."""

    names: tuple[str, ...]
    also: Mapping[str, int] = field(default_factory=dict)

    def read(self, table: Table, name: str, options: DataOptions) -> list[int]:
        return labels_of(table, name, self.names, options, self.also)


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, table: Table, name: str, options: DataOptions) -> list[str]:
        for row in table.rows:
            if row[name] not in self.words:
                raise row.error(f"{name} {row[name]!r}; expected {' or '.join(self.words)}")
        return [row[name] for row in table.rows]


@dataclass(frozen=True)
class Texts:
    """A list of texts, one at least; under a key where there is one: {"text": ["1811"]}. Files of text hold it as JSON."""

    key: str = ""

    def read(self, table: Table, name: str, options: DataOptions) -> list[tuple[str, ...]]:
        return [self.of(row, name) for row in table.rows]

    def of(self, row: Row, name: str) -> tuple[str, ...]:
        value = _parsed(row[name])
        found = value.get(self.key) if self.key and isinstance(value, dict) else value
        found = found if isinstance(found, list) else [found]
        if not found or not all(isinstance(item, str | int | float) and item != "" for item in found):
            expected = f'{{"{self.key}": ["..."]}}' if self.key else '["...", "..."]'
            raise row.error(f"{name} {value!r}; expected texts, as in {expected}")
        return tuple(item if isinstance(item, str) else json.dumps(item) for item in found)


def _parsed(value: Any) -> Any:
    """What a file of text holds as JSON; text that is no list or object is itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


@dataclass(frozen=True)
class Answers:
    """The answers that are right, one or a list: the first is the one to train towards."""

    def read(self, table: Table, name: str, options: DataOptions) -> list[tuple[str, ...]]:
        return [Texts().of(row, name) if isinstance(row[name], list) else (text_of(row, name).strip(),) for row in table.rows]


def named(**columns: Column) -> Mapping[str, Column]:
    """The columns of a task, in the order in which a message lists them."""
    return columns
