"""SQuAD: the answer to a question about a passage, generated.

Prompt, target and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share: trained on the mean
negative log-prob of the first answer and the line's end, judged by the F1 of a greedy answer of at most 50 tokens. Data: arXiv
1606.05250.
"""

from __future__ import annotations

from typing import Any

from workloads.tasks.columns import Text, Texts, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import Writer, skewed
from workloads.tasks.task import Row, Sizes


class SQuAD(PublishedTask):
    name, title = "squad", "SQuAD"
    hub = Hub("rajpurkar/squad")
    columns = named(
        title=Text(skewed(2, 2.2, 1, 8), empty=True),
        context=Text(skewed(110, 120, 25, 650)),
        question=Text(skewed(9.6, 10.1, 3, 35), empty=True),
        answers=Texts("text"),
    )
    objective, metric, answer_tokens = "nll", "f1", 50
    sizes = Sizes(1000, 500, 1000)

    def prompt(self, row: Row) -> str:
        return f"Title: {row['title']}\nContext: {row['context']}\nQuestion: {row['question'].strip()}\nAnswer:"

    def options(self, row: Row) -> tuple[str, ...]:
        return (f" {row['answers'][0]}\n",)

    def right(self, row: Row) -> tuple[int, ...]:
        return (0,)

    def references(self, row: Row) -> tuple[str, ...]:
        return tuple(row["answers"])

    def calibration(self, row: Row) -> None:
        return None

    def complete(self, row: dict[str, Any], writer: Writer) -> None:
        row["answers"] = (writer.span(str(row["context"]), skewed(2.2, 3.2, 1, 25)),)
