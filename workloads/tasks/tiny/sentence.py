"""Go on with a sentence, and a reward for it: does what was generated praise?

The shape of training by reward, small enough for `opt-tiny`: any words may follow, and what they are worth is said by a function,
`--task tiny-sentence --reward workloads.tasks.tiny.sentence:praise`.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.data import Example, Metric, Objective
from workloads.generated import NEGATIVE, POSITIVE
from workloads.tasks.published.standin import Writer
from workloads.tasks.task import Row
from workloads.tasks.tiny.answer import END
from workloads.tasks.tiny.base import TinyTask

OPENING = 3


class TinySentence(TinyTask):
    name = "tiny-sentence"
    objective: Objective = "nll"
    metric: Metric = "f1"
    answer_tokens = 12

    def row(self, sentence: str, label: int, writer: Writer) -> Row:
        """The first words; the rest is what the corpus has, a full stop where there is no rest."""
        words = sentence.split()
        return {"opening": " ".join(words[:OPENING]), "rest": " ".join(words[OPENING:]) or "."}

    def prompt(self, row: Row) -> str:
        return row["opening"]

    def options(self, row: Row) -> Sequence[str]:
        return (f" {row['rest']}{END}",)

    def right(self, row: Row) -> Sequence[int]:
        return (0,)

    def references(self, row: Row) -> Sequence[str]:
        return (row["rest"],)

    def calibration(self, row: Row) -> None:
        """Without its opening no prompt is left."""


def praise(prompt: str, text: str, example: Example) -> float:
    """Share of the words that are adjectives of praise, less the share of those that scold: from -1 to 1, and 0 for no words."""
    words = text.split()
    return sum((word in POSITIVE) - (word in NEGATIVE) for word in words) / max(1, len(words))
