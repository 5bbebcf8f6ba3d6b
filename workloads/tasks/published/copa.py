"""COPA: which of two alternatives is the cause or the effect of the premise?

Prompt, options and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share: 100 of the 400
training rows are dev, and what is trained is the mean negative log-prob of the right alternative, not a classification. Data:
SuperGLUE (arXiv 1905.00537).
"""

from __future__ import annotations

from typing import Any

from workloads.tasks.columns import Label, OneOf, Text, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import Writer, even
from workloads.tasks.task import Row, Sizes

JOINED_BY = {"cause": "because", "effect": "so"}


class COPA(PublishedTask):
    name, title = "copa", "COPA"
    hub = Hub("aps/super_glue", "copa")
    columns = named(
        premise=Text(even(6.2, 2, 3, 13)),
        choice1=Text(even(5.1, 1.6, 2, 11)),
        choice2=Text(even(5.1, 1.6, 2, 11)),
        question=OneOf(tuple(JOINED_BY)),
        label=Label(("choice1", "choice2")),
    )
    objective = "nll"
    sizes = Sizes(300, 100, 100)

    def prompt(self, row: Row) -> str:
        return f"{row['premise'].rstrip().removesuffix('.')} {self.calibration(row)} "

    def options(self, row: Row) -> tuple[str, ...]:
        return (continued(row["choice1"]), continued(row["choice2"]))

    def calibration(self, row: Row) -> str:
        return JOINED_BY[row["question"]]

    def complete(self, row: dict[str, Any], writer: Writer) -> None:
        row["question"] = writer.one_of(tuple(JOINED_BY))


def continued(choice: str) -> str:
    """A sentence that goes on from the premise: its first word in small letters, unless it is I."""
    first, space, rest = choice.partition(" ")
    return f"{first if first == 'I' else first.lower()}{space}{rest}"
