"""CommitmentBank: does the premise commit its speaker to the hypothesis?

Prompt, options and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share: 100 of the 250
training rows are dev. Data: SuperGLUE (arXiv 1905.00537).
"""

from __future__ import annotations

from workloads.tasks.columns import Label, Text, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import skewed
from workloads.tasks.task import Row, Sizes


class CB(PublishedTask):
    name, title = "cb", "CB"
    hub = Hub("aps/super_glue", "cb")
    columns = named(
        premise=Text(skewed(43, 52, 5, 190)),
        hypothesis=Text(skewed(6.5, 7.2, 2, 30)),
        label=Label(("entailment", "contradiction", "neutral")),
    )
    sizes = Sizes(150, 100, 56)

    def prompt(self, row: Row) -> str:
        return f'Suppose {row["premise"]} Can we infer that "{row["hypothesis"]}"? Yes, No, or Maybe?\n'

    def options(self, row: Row) -> tuple[str, ...]:
        return ("Yes", "No", "Maybe")
