"""Made-up text for where a data set cannot be had: the lengths of the real one, words of the built-in corpus, no meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workloads.generated import ADVERBS, FILLERS, NEGATIVE, NOUNS, POSITIVE, Lengths

WORDS = np.array(FILLERS * 4 + NOUNS * 2 + ADVERBS + POSITIVE + NEGATIVE)
SENTENCE = 20
"""Words in a sentence of a passage."""


def skewed(median: float, mean: float, least: int, most: int) -> Lengths:
    """Log-normal word counts."""
    return Lengths(median, math.sqrt(2 * math.log(mean / median)), least, most, log=True)


def even(mean: float, sd: float, least: int, most: int) -> Lengths:
    """Normal word counts."""
    return Lengths(mean, sd, least, most, log=False)


class Writer:
    """A seeded source of texts."""

    def __init__(self, *seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def count(self, lengths: Lengths) -> int:
        return lengths.draw(1, self.random)[0]

    def passage(self, words: int) -> str:
        """Sentences of about 20 words, `words` in all. One or two words stay what they are: a name, an answer."""
        drawn = [str(word) for word in WORDS[self.random.integers(0, len(WORDS), words)]]
        if words < 3:
            return " ".join(drawn)
        sentences = [" ".join(drawn[start : start + SENTENCE]) for start in range(0, words, SENTENCE)]
        return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences)

    def sentence(self, words: int) -> str:
        return self.passage(words).rstrip(".")

    def names(self, count: int) -> list[str]:
        """Different names of one to three words, each with a capital letter."""
        found: dict[str, None] = {}
        while len(found) < count:
            drawn = WORDS[self.random.integers(0, len(WORDS), self.random.choice((1, 2, 2, 3)))]
            found[" ".join(str(word).capitalize() for word in drawn)] = None
        return list(found)

    def woven(self, text: str, pieces: Sequence[str]) -> str:
        """The text with pieces put between its words."""
        words = text.split(" ")
        for piece in pieces:
            words.insert(int(self.random.integers(0, len(words))), piece)
        return " ".join(words)

    def span(self, text: str, lengths: Lengths) -> str:
        """Some words in a row of a text."""
        words, count = text.split(" "), self.count(lengths)
        start = int(self.random.integers(0, max(1, len(words) - count)))
        return " ".join(words[start : start + count]).rstrip(".")

    def random_below(self, limit: int) -> int:
        return int(self.random.integers(0, limit))

    def one_of(self, things: Sequence[Any]) -> Any:
        return things[self.random_below(len(things))]
