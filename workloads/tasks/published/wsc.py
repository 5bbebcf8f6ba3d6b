"""The Winograd schema challenge: does a pronoun stand for a noun phrase?

Prompt, options and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share: the scripts keep 500
rows for dev, so that only 54 of the 554 are trained on. Data: SuperGLUE (arXiv 1905.00537), configuration wsc.fixed.
"""

from __future__ import annotations

from typing import Any

from workloads.tasks.columns import Label, Text, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import Writer, skewed
from workloads.tasks.task import Row, Sizes


class WSC(PublishedTask):
    name, title = "wsc", "WSC"
    hub = Hub("aps/super_glue", "wsc.fixed")
    columns = named(
        text=Text(skewed(19, 27, 8, 120)),
        span1_text=Text(skewed(1.6, 1.9, 1, 6)),
        span2_text=Text(skewed(1, 1.01, 1, 2)),
        label=Label(("False", "True")),
    )
    sizes = Sizes(54, 500, 104)

    def prompt(self, row: Row) -> str:
        question = f'does the pronoun "{row["span2_text"].lower()}" refer to {row["span1_text"]}? Yes or No?'
        return f"{row['text']}\nIn the previous sentence, {question}\n"

    def options(self, row: Row) -> tuple[str, ...]:
        return ("No", "Yes")

    def complete(self, row: dict[str, Any], writer: Writer) -> None:
        row["span2_text"] = writer.one_of(("it", "he", "she", "They"))
