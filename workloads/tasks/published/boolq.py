"""BoolQ: a yes-or-no question about a passage.

Prompt, options and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share. Data: arXiv
1905.10044, whose mean lengths the stand-in has.
"""

from __future__ import annotations

from workloads.tasks.columns import Label, Text, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import even, skewed
from workloads.tasks.task import Row, Sizes


class BoolQ(PublishedTask):
    name, title = "boolq", "BoolQ"
    hub = Hub("google/boolq")
    columns = named(
        passage=Text(skewed(95, 108, 20, 700)),
        question=Text(even(8.9, 2.0, 5, 20)),
        answer=Label(("False", "True")),
    )
    sizes = Sizes(1000, 500, 1000)

    def prompt(self, row: Row) -> str:
        question = row["question"].removesuffix("?") + "?"
        return f"{row['passage']} {question[0].upper()}{question[1:]}\n"

    def options(self, row: Row) -> tuple[str, ...]:
        return ("Yes", "No")

    def right(self, row: Row) -> tuple[int, ...]:
        return (1 - row["answer"],)
