"""Which verdict fits a sentence? Two to four answers of one to three words, different ones for each sentence, one of them right.

The shape of a task whose answers differ from row to row, small enough for `opt-tiny` to learn in some hundred steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from workloads.generated import ADVERBS
from workloads.tasks.published.standin import Writer
from workloads.tasks.task import Row
from workloads.tasks.tiny.base import TinyTask


class TinyChoice(TinyTask):
    name = "tiny-choice"

    def row(self, sentence: str, label: int, writer: Writer) -> Row:
        """The right answer has one word or two, the wrong ones, up to three of them, have one to three."""
        verdicts = ("terrible", "great") if label else ("great", "terrible")
        wrong = [self._verdict(verdicts[0], words, writer) for words in range(3)]
        kept = [wrong[n] for n in writer.random.permutation(3)[: 1 + writer.random_below(3)]]
        place = writer.random_below(len(kept) + 1)
        kept.insert(place, self._verdict(verdicts[1], writer.random_below(2), writer))
        return {"sentence": sentence, "answers": tuple(kept), "label": place}

    def options(self, row: Row) -> Sequence[str]:
        return row["answers"]

    def _verdict(self, word: str, adverbs: int, writer: Writer) -> str:
        return "".join(f" {part}" for part in [*(writer.one_of(ADVERBS) for _ in range(adverbs)), word])
