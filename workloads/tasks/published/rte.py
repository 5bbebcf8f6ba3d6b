"""RTE: does the premise mean that the hypothesis is true?

Prompt, options and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share. Data: SuperGLUE
(arXiv 1905.00537).
"""

from __future__ import annotations

from workloads.tasks.columns import Label, Text, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import skewed
from workloads.tasks.task import Row, Sizes


class RTE(PublishedTask):
    name, title = "rte", "RTE"
    hub = Hub("aps/super_glue", "rte")
    columns = named(
        premise=Text(skewed(36, 45, 5, 230)),
        hypothesis=Text(skewed(8, 8.8, 3, 40)),
        label=Label(("entailment", "not_entailment")),
    )
    sizes = Sizes(1000, 500, 277)

    def prompt(self, row: Row) -> str:
        return f'{row["premise"]}\nDoes this mean that "{row["hypothesis"]}" is true? Yes or No?\n'

    def options(self, row: Row) -> tuple[str, ...]:
        return ("Yes", "No")
