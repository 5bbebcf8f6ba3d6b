"""Words in context: does a word mean the same in two sentences?

Prompt, options and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share. Data: SuperGLUE
(arXiv 1905.00537).
"""

from __future__ import annotations

from workloads.tasks.columns import Label, Text, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import skewed
from workloads.tasks.task import Row, Sizes


class WiC(PublishedTask):
    name, title = "wic", "WiC"
    hub = Hub("aps/super_glue", "wic")
    columns = named(
        word=Text(skewed(1, 1.01, 1, 2)),
        sentence1=Text(skewed(7, 8.4, 2, 40)),
        sentence2=Text(skewed(7, 8.4, 2, 40)),
        label=Label(("False", "True")),
    )
    sizes = Sizes(1000, 500, 638)

    def prompt(self, row: Row) -> str:
        question = f'Does the word "{row["word"]}" have the same meaning in these two sentences? Yes, No?'
        return f"{question}\n{row['sentence1']}\n{row['sentence2']}\n"

    def options(self, row: Row) -> tuple[str, ...]:
        return ("No", "Yes")
