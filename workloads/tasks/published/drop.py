"""DROP: the answer to a question about a passage that takes counting or comparing, generated.

Prompt, target and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share: trained on the mean
negative log-prob of the first answer and the line's end, judged by the F1 of a greedy answer of at most 50 tokens (SQuAD's F1,
not the DROP paper's own). Data: arXiv 1903.00161.
"""

from __future__ import annotations

from typing import Any

from workloads.tasks.columns import Text, Texts, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import Writer, even, skewed
from workloads.tasks.task import Row, Sizes

NUMBERS, SPANS = skewed(9, 20, 0, 500), skewed(1.8, 2.2, 1, 8)


class DROP(PublishedTask):
    name, title = "drop", "DROP"
    hub = Hub("ucinlp/drop")
    columns = named(
        passage=Text(skewed(195, 213, 50, 600)),
        question=Text(even(11, 3.5, 4, 30), empty=True),
        answers_spans=Texts("spans"),
    )
    objective, metric, answer_tokens = "nll", "f1", 50
    sizes = Sizes(1000, 500, 1000)

    def prompt(self, row: Row) -> str:
        return f"Passage: {row['passage']}\nQuestion: {row['question'].strip()}\nAnswer:"

    def options(self, row: Row) -> tuple[str, ...]:
        return (f" {row['answers_spans'][0]}\n",)

    def right(self, row: Row) -> tuple[int, ...]:
        return (0,)

    def references(self, row: Row) -> tuple[str, ...]:
        return tuple(row["answers_spans"])

    def calibration(self, row: Row) -> None:
        return None

    def complete(self, row: dict[str, Any], writer: Writer) -> None:
        """Three answers in five are numbers."""
        number, span = str(writer.count(NUMBERS)), writer.span(str(row["passage"]), SPANS)
        row["answers_spans"] = (writer.one_of((number, number, number, span, span)),)
