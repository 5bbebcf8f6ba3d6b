"""SST-2: is a sentence of a film review negative or positive?

Prompt, options and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share. Data: GLUE (arXiv
1804.07461). The stand-in is the built-in corpus, which `opt-tiny` can learn to judge.
"""

from __future__ import annotations

from workloads.generated import EVAL, TASK, TRAIN, sentences
from workloads.tasks.columns import Label, Text, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.task import Row, Sizes


class SST2(PublishedTask):
    name, title = "sst2", "SST-2"
    hub = Hub("stanfordnlp/sst2")
    columns = named(
        sentence=Text(),
        label=Label(("negative", "positive"), also={"false": 0, "true": 1}),
    )
    sizes = Sizes(1000, 500, 872)

    def prompt(self, row: Row) -> str:
        return f"{row['sentence'].strip()} It was"

    def options(self, row: Row) -> tuple[str, ...]:
        return (" terrible", " great")

    def calibration(self, row: Row) -> str:
        return " It was"

    def generated(self, count: int, split: str, seed: int) -> list[Row]:
        lengths, part = (TRAIN, 1) if split == "train" else (EVAL, 2)
        return [{"sentence": text, "label": label} for text, label in sentences(count, lengths, TASK, seed, part)]
