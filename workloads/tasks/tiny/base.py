"""What both have in common: sentences of the built-in corpus, whose tone `opt-tiny` hears but answers badly."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

from bench.errors import UsageError
from workloads.generated import EVAL, TASK, TRAIN, sentences
from workloads.tasks.published.standin import Writer
from workloads.tasks.rows import Found, RowTask
from workloads.tasks.task import Row, Sizes, TaskOptions


class TinyTask(RowTask):
    """The rows are always generated, from the sentences that SST-2's stand-in has. A subclass says what they are asked."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    sizes = Sizes(1000, 500, 500)
    source = "generated, for opt-tiny"

    @classmethod
    def from_options(cls, options: TaskOptions) -> Self:
        for name in ("data", "template", "options", "target", "objective"):
            given = getattr(options, name)
            if given not in (None, cls.objective):
                raise UsageError(f"--{name} {given}: --task {cls.name} has its own; leave one of the two out")
        return cls()

    def find(self, options: TaskOptions, *, offline: bool) -> Found:
        return self.made_up(options, "the rows are generated: a task to see fine-tuning at work, and no benchmark")

    def generated(self, count: int, split: str, seed: int) -> list[Row]:
        lengths, part = (TRAIN, 1) if split == "train" else (EVAL, 2)
        writer = Writer(seed, part, 7)
        return [self.row(text, label, writer) for text, label in sentences(count, lengths, TASK, seed, part)]

    @abstractmethod
    def row(self, sentence: str, label: int, writer: Writer) -> Row:
        """label: 1 for a sentence in praise, 0 for one against."""

    def prompt(self, row: Row) -> str:
        return f"{row['sentence']} It was"

    def calibration(self, row: Row) -> str | None:
        return " It was"
