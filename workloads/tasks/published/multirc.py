"""MultiRC: is an answer to a question about a paragraph correct? Every answer is an example of its own.

Prompt, options and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share. Data: SuperGLUE
(arXiv 1905.00537).
"""

from __future__ import annotations

from workloads.tasks.columns import Label, Text, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import even, skewed
from workloads.tasks.task import Row, Sizes


class MultiRC(PublishedTask):
    name, title = "multirc", "MultiRC"
    hub = Hub("aps/super_glue", "multirc")
    columns = named(
        paragraph=Text(even(260, 90, 50, 600)),
        question=Text(even(10.9, 4, 3, 30)),
        answer=Text(skewed(3.5, 5, 1, 40), empty=True),
        label=Label(("False", "True")),
    )
    sizes = Sizes(1000, 500, 1000)

    def prompt(self, row: Row) -> str:
        question = f'I found this answer "{row["answer"]}". Is that correct? Yes or No?'
        return f"{row['paragraph']}\nQuestion: {row['question']}\n{question}\n"

    def options(self, row: Row) -> tuple[str, ...]:
        return ("No", "Yes")
