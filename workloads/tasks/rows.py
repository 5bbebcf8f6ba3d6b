"""What tasks that read rows have in common: checked columns, upstream's split, a label that numbers the options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data import Metric, Objective
from bench.errors import UsageError
from workloads.rows.read import read_tables
from workloads.rows.table import DataOptions, Table
from workloads.rows.values import one_label_warning
from workloads.tasks import split
from workloads.tasks.columns import Column, Label
from workloads.tasks.task import Row, Sizes, TaskOptions, TaskRows

Take = Callable[[Sequence[int]], list[Row]]


@dataclass(frozen=True)
class Found:
    """The rows of a data set, taken by their numbers. shuffled: upstream's permutation is still to be drawn."""

    origin: str
    train: Take
    train_rows: int
    held_out: Take
    held_out_rows: int
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    shuffled: bool = True


class RowTask(ABC):
    """A task whose rows come from tables. A subclass declares the columns and the sizes, finds the rows and writes the prompt."""

    objective: Objective = "classification"
    metric: Metric = "accuracy"
    answer_tokens: int = 0
    columns: Mapping[str, Column]
    sizes: Sizes

    @abstractmethod
    def prompt(self, row: Row) -> str: ...

    @abstractmethod
    def options(self, row: Row) -> Sequence[str]: ...

    @abstractmethod
    def generated(self, count: int, split: str, seed: int) -> list[Row]: ...

    @abstractmethod
    def find(self, options: TaskOptions, *, offline: bool) -> Found:
        """Where the rows are."""

    def right(self, row: Row) -> Sequence[int]:
        return (row["label"],)

    def references(self, row: Row) -> Sequence[str]:
        return ()

    def calibration(self, row: Row) -> str | None:
        return ""

    def fault(self, row: Row) -> str:
        """What is wrong between the columns of a row, each of which is right by itself; "" where nothing is."""
        return ""

    def read(self, options: TaskOptions, *, offline: bool) -> TaskRows:
        found = self.find(options, offline=offline)
        seed, each = options.data_seed, options.demonstrations
        common, train, dev = split.train_and_dev(found.train_rows, self.sizes, seed if found.shuffled else None, each)
        held_out = split.held_out(found.held_out_rows, seed)
        own = found.train([row for rows in split.own_demonstrations(found.train_rows, each, len(held_out)) for row in rows])
        return TaskRows(
            train=found.train(train),
            dev=found.train(dev),
            eval=found.held_out(held_out),
            origin=found.origin,
            read=found.train_rows + found.held_out_rows,
            left_out=found.left_out,
            common=found.train(common),
            own=[own[start : start + each] for start in range(0, len(own), each)] if each else [],
            warnings=found.warnings,
        )

    def clean(self, table: Table, options: DataOptions | None = None) -> list[Row]:
        """The task's columns of every row, checked; UsageError names the row."""
        columns = {name: column.read(table, name, options or DataOptions()) for name, column in self.columns.items()}
        rows: list[Row] = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for row, given in zip(rows, table.rows, strict=True):
            if fault := self.fault(row):
                raise given.error(fault)
        return rows

    def of_file(self, path: str, options: DataOptions) -> Found:
        """The rows of a file or a folder; without validation rows the last fifth is held out."""
        labels = {name: column.names for name, column in self.columns.items() if isinstance(column, Label)}
        if options.labels and not labels:
            raise UsageError(f"--labels {','.join(options.labels)}: the task has no labels; leave it out")
        tables = read_tables(path, tuple(self.columns), options)
        train: Sequence[Row] = self.clean(tables.train, options)
        warnings = [*tables.warnings]
        for name, words in labels.items():
            warnings += one_label_warning([row[name] for row in train], words, path)
        held_out: Sequence[Row]
        if tables.validation is not None:
            held_out = self.clean(tables.validation, options)
        else:
            train, held_out = split.without_validation(train)
        origin, where = f"file {Path(path).name}", (taking(train), len(train), taking(held_out), len(held_out))
        return Found(origin, *where, warnings=tuple(warnings), left_out=tables.left_out)

    def made_up(self, options: TaskOptions, warning: str) -> Found:
        """Generated rows, as many as the task has."""
        count = options.demonstrations + self.sizes.train + self.sizes.dev
        train = self.generated(count, "train", options.data_seed)
        held_out = self.generated(self.sizes.eval, "eval", options.data_seed)
        return Found("generated", taking(train), count, taking(held_out), len(held_out), (warning,), shuffled=False)


def taking(rows: Sequence[Row]) -> Take:
    return lambda chosen: [rows[number] for number in chosen]
