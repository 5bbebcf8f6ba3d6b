"""ReCoRD: which of the entities of a news passage fits the gap in the query? The options are whole queries.

Prompt, options and split: MeZO's published code (arXiv 2305.17333, `large_models`), which LoZO's runs share: the GPT-3 form of
the prompt, and what is trained is the mean negative log-prob of the query with the first right answer, not a classification.
Data: arXiv 1810.12885 (whose mean lengths the stand-in has), as in SuperGLUE.
"""

from __future__ import annotations

from typing import Any

from workloads.tasks.columns import Text, Texts, named
from workloads.tasks.published.base import PublishedTask
from workloads.tasks.published.hub import Hub
from workloads.tasks.published.standin import Writer, even
from workloads.tasks.task import Row, Sizes

GAP = "@placeholder"
ENTITIES = even(10, 5, 2, 40)


class ReCoRD(PublishedTask):
    name, title = "record", "ReCoRD"
    hub = Hub("aps/super_glue", "record")
    columns = named(
        passage=Text(even(169.5, 55, 40, 400)),
        query=Text(even(21.4, 7, 6, 50)),
        entities=Texts(),
        answers=Texts(),
    )
    objective = "nll"
    sizes = Sizes(1000, 500, 1000)

    def prompt(self, row: Row) -> str:
        return row["passage"].replace("@highlight\n", "- ") + "\n-"

    def options(self, row: Row) -> tuple[str, ...]:
        return tuple(" " + row["query"].replace(GAP, entity) for entity in row["entities"])

    def right(self, row: Row) -> tuple[int, ...]:
        """Every entity that is an answer; the first answer's comes first, as training is towards it."""
        entities, answers = row["entities"], row["answers"]
        return tuple(number for answer in answers for number, entity in enumerate(entities) if entity == answer)

    def calibration(self, row: Row) -> str:
        return "-"

    def fault(self, row: Row) -> str:
        if GAP not in row["query"]:
            return f"the query has no {GAP}"
        unknown = [answer for answer in row["answers"] if answer not in row["entities"]]
        return f"the answer {unknown[0]!r} is none of the entities" if unknown else ""

    def complete(self, row: dict[str, Any], writer: Writer) -> None:
        names = writer.names(writer.count(ENTITIES))
        row["passage"] = f"{writer.woven(str(row['passage']), names)}\n@highlight\n{writer.sentence(12)}"
        row["query"] = writer.woven(str(row["query"]), [GAP])
        row["entities"], row["answers"] = tuple(names), (writer.one_of(tuple(names)),)
