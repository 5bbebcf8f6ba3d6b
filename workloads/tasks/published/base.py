"""What the tasks of the papers have in common: rows of the hub, or made-up ones of the same lengths where it is out of reach."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from bench.data import Objective
from bench.errors import UsageError
from workloads.tasks.columns import Label, Text
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import Writer
from workloads.tasks.rows import Found, RowTask
from workloads.tasks.task import Row, TaskOptions


class PublishedTask(RowTask):
    """A task of the papers; its objective is that of the published runs."""

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[int] = 1
    hub: ClassVar[Hub]

    def __init__(self, objective: Objective | None = None) -> None:
        self.objective = objective or self.objective
        self.source = f"hub {self.hub}"

    @classmethod
    def from_options(cls, options: TaskOptions) -> Self:
        if options.objective == "classification" and cls.answer_tokens:
            raise UsageError(f"--objective classification: {cls.title} has no options to classify; use --objective nll")
        for name in ("template", "options", "target"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name}: --task {cls.name} has a prompt of its own; leave out one of the two")
        return cls(options.objective)

    def find(self, options: TaskOptions, *, offline: bool) -> Found:
        if options.data is not None:
            return self.of_file(options.data, options.rows)
        warning = f"the rows are generated, with {self.title}'s lengths; a score on them says nothing about {self.title}"
        return (None if offline else self._of_hub()) or self.made_up(options, warning)

    def generated(self, count: int, split: str, seed: int) -> list[Row]:
        """Texts of the declared lengths, labels by chance."""
        writer = Writer(seed, 1 if split == "train" else 2)
        return [self._row(writer) for _ in range(count)]

    def complete(self, row: dict[str, Any], writer: Writer) -> None:
        """Fill in or change what a generated row needs beyond texts of the right lengths and labels."""

    def _of_hub(self) -> Found | None:
        splits = self.hub.load()
        if splits is None:
            return None
        train, held_out = splits["train"], splits["validation"]
        return Found(
            f"hub {self.hub}",
            lambda rows: self.clean(self.hub.table(train, rows)),
            len(train),
            lambda rows: self.clean(self.hub.table(held_out, rows)),
            len(held_out),
        )

    def _row(self, writer: Writer) -> Row:
        row: dict[str, Any] = {}
        for name, column in self.columns.items():
            if isinstance(column, Label):
                row[name] = writer.random_below(len(column.names))
            elif isinstance(column, Text) and column.words:
                row[name] = writer.passage(writer.count(column.words))
        self.complete(row, writer)
        return row
