"""Say what a sentence is like, in a word: the answer is generated, and right only if it is that word and nothing else.

The shape of a generating task, small enough for `opt-tiny` to learn in some hundred steps. Its answers end as its pre-training
texts do, where the published tasks end theirs with the line.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.data import Metric, Objective
from workloads.tasks.published.standin import Writer
from workloads.tasks.task import Row
from workloads.tasks.tiny.base import TinyTask

WORDS, END = ("awful", "superb"), "</s>"


class TinyAnswer(TinyTask):
    name = "tiny-answer"
    objective: Objective = "nll"
    metric: Metric = "exact_match"
    answer_tokens = 8

    def row(self, sentence: str, label: int, writer: Writer) -> Row:
        return {"sentence": sentence, "answer": WORDS[label]}

    def options(self, row: Row) -> Sequence[str]:
        return (f" {row['answer']}{END}",)

    def right(self, row: Row) -> Sequence[int]:
        return (0,)

    def references(self, row: Row) -> Sequence[str]:
        return (row["answer"],)
