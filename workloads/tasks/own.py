"""Data of the user's own: `--template` says how a row becomes a prompt, `--options` or `--target` what the answers are.

--data reviews.csv --template "{text} It was{option}" --options " bad, great"
--data questions.jsonl --template "{question}\\nAnswer: {answer}" --target answer
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from bench.data import Metric, Objective
from bench.errors import UsageError
from workloads.tasks.columns import Answers, Column, Label, Text
from workloads.tasks.pattern import Pattern, parse
from workloads.tasks.rows import Found, RowTask
from workloads.tasks.task import Row, Sizes, TaskOptions

OPTION, LABEL = "option", "label"
COMMA = re.compile(r"(?<!\\),")


class Own(RowTask):
    """The prompt is what stands before the answer's place in the template; what follows the place belongs to the answer."""

    name: ClassVar[str] = "own"
    version: ClassVar[int] = 1
    sizes = Sizes(1000, 500, 1000)
    source = "a file of yours"

    def __init__(self, template: Pattern, slot: str, columns: Mapping[str, Column]) -> None:
        self.before, self.after = template.around(slot)
        self.columns = {**{name: Text(empty=True) for name in template.columns if name != slot}, **columns}

    @classmethod
    def from_options(cls, options: TaskOptions) -> Own:
        template = options.template
        if template is None:
            raise UsageError('--task own: --template says how a row becomes a prompt, as in --template "{text} It was{option}"')
        if (options.options is None) == (options.target is None):
            raise UsageError('--template: say what the answers are, with either --options " bad, great" or --target COLUMN')
        if options.options is not None:
            return Choice(template, options.options, options.objective or "classification")
        if options.objective == "classification":
            raise UsageError("--objective classification: --target has no options to classify; leave one of the two out")
        return Answer(template, str(options.target))

    def find(self, options: TaskOptions, *, offline: bool) -> Found:
        if options.data is None:
            raise UsageError("--task own: --data says where your rows are, a file or a folder")
        return self.of_file(options.data, options.rows)

    def prompt(self, row: Row) -> str:
        return self.before.fill(row)

    def options(self, row: Row) -> Sequence[str]:
        raise NotImplementedError

    def calibration(self, row: Row) -> None:
        return None

    def generated(self, count: int, split: str, seed: int) -> list[Row]:
        return []


class Choice(Own):
    """One of several answers, which may hold columns themselves; the column `label` says which, by number or word."""

    def __init__(self, template: str, options: str, objective: Objective) -> None:
        self.answers = [parse("--options", text) for text in COMMA.split(options)]
        if len(self.answers) < 2 or not all(answer.pieces for answer in self.answers):
            raise UsageError(f'--options {options}: name two answers or more, as in " bad, great"')
        words = tuple(text.strip().replace("\\,", ",") for text in COMMA.split(options))
        columns: dict[str, Column] = {name: Text(empty=True) for answer in self.answers for name in answer.columns}
        super().__init__(_with_place(template, OPTION), OPTION, columns | {LABEL: Label(words)})
        self.objective = objective

    def options(self, row: Row) -> Sequence[str]:
        return [answer.fill(row) + self.after.fill(row) for answer in self.answers]


class Answer(Own):
    """A generated answer; its column holds the one to train towards, or a list of which the first is."""

    objective: Objective = "nll"
    metric: Metric = "f1"
    answer_tokens = 50

    def __init__(self, template: str, target: str) -> None:
        super().__init__(_with_place(template, target), target, {target: Answers()})
        self.target = target

    def options(self, row: Row) -> Sequence[str]:
        """A line's end closes the answer, as upstream's does."""
        return [(row[self.target][0] + self.after.fill(row)).rstrip("\n") + "\n"]

    def right(self, row: Row) -> Sequence[int]:
        return (0,)

    def references(self, row: Row) -> Sequence[str]:
        return row[self.target]


def _with_place(template: str, slot: str) -> Pattern:
    """The template, with one place for the answer; at its end, after a space, where it names none."""
    found = parse("--template", template)
    places = found.columns.count(slot)
    if places > 1 or (places < 1 and slot == OPTION):
        raise UsageError(f"--template {template}: put {{{slot}}} once where the answer goes")
    return found if places else parse("--template", f"{template.rstrip()} {{{slot}}}")
