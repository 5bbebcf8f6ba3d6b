"""What held-out examples are judged by: the option that scores best, or the words of a generated answer."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from bench.data import Example, Metric

NO_ANSWER = ("CANNOTANSWER", "no answer")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def correct(best: Sequence[int], examples: Sequence[Example]) -> list[float]:
    """1.0 for every example whose best-scored option, given by its number, is a right one, else 0.0."""
    return [float(number in (example.right or (example.label,))) for number, example in zip(best, examples, strict=True)]


def normalized(answer: str) -> list[str]:
    """The words of an answer: small letters, no punctuation, no articles. Source: SQuAD's own evaluation (arXiv 1606.05250)."""
    return re.sub(r"\b(a|an|the)\b", " ", answer.lower().translate(PUNCTUATION)).split()


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1.0 where the answer has the words of a reference, in their order."""
    return float(normalized(answer) in [normalized(reference) for reference in references])


def f1(answer: str, references: Sequence[str]) -> float:
    """The best harmonic mean, over the references, of precision and recall of the answer's words.

    Without words in common it is 0, also where neither has any. Where there is no answer to give, saying so is all that counts.
    """
    if references[0] in NO_ANSWER:
        return float(normalized(answer) == normalized(references[0]))
    return max(_overlap(normalized(answer), normalized(reference)) for reference in references)


def _overlap(given: list[str], wanted: list[str]) -> float:
    common = (Counter(given) & Counter(wanted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


OF_ANSWERS: dict[Metric, Callable[[str, Sequence[str]], float]] = {"f1": f1, "exact_match": exact_match}
"""Metrics of generated answers."""
