"""A generated sentiment set with SST-2's lengths: the offline default, and the domain `opt-tiny` is pre-trained on.

Short clauses about a film carry adjectives of one polarity among neutral words. Clause templates come in two disjoint sets:
pre-training uses one, the task (train, dev and eval) the other. Clauses are cut and filled up to a length, so templates alone
do not keep the two apart: every sentence of the task holds a word that pre-training never has (MARKS), or is one adjective
alone, which no sentence of pre-training is. So no skeleton (a sentence with its words replaced by their kinds) is in both.
Lengths: training phrases log-normal with median 7 and mean 9.4 words in [1, 52]; evaluation sentences normal with mean 19.5
and standard deviation 8.7 in [2, 47].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

POSITIVE = [
    "great",
    "wonderful",
    "charming",
    "brilliant",
    "moving",
    "delightful",
    "clever",
    "superb",
    "warm",
    "funny",
    "gripping",
    "elegant",
    "fresh",
    "tender",
    "lovely",
    "inspired",
    "dazzling",
    "honest",
    "witty",
    "graceful",
    "vivid",
    "joyful",
    "splendid",
    "touching",
    "masterful",
    "engaging",
    "beautiful",
    "rich",
    "sincere",
    "bright",
]
NEGATIVE = [
    "terrible",
    "awful",
    "boring",
    "clumsy",
    "tedious",
    "lifeless",
    "shallow",
    "dull",
    "bland",
    "messy",
    "painful",
    "annoying",
    "stale",
    "weak",
    "hollow",
    "tiresome",
    "dreary",
    "pointless",
    "sloppy",
    "crude",
    "lazy",
    "pretentious",
    "muddled",
    "forgettable",
    "grating",
    "cheap",
    "cold",
    "ugly",
    "flat",
    "miserable",
]
NOUNS = [
    "film",
    "movie",
    "story",
    "plot",
    "script",
    "cast",
    "acting",
    "director",
    "dialogue",
    "ending",
    "music",
    "camera",
    "pacing",
    "humor",
    "drama",
    "romance",
    "thriller",
    "comedy",
    "picture",
    "scene",
    "character",
    "performance",
    "screenplay",
    "premise",
    "tone",
    "editing",
    "scenery",
    "opening",
    "sequel",
    "documentary",
]
ADVERBS = ["very", "quite", "truly", "rather", "really", "so", "deeply", "simply", "utterly", "remarkably"]
FILLERS = [
    "about",
    "with",
    "from",
    "into",
    "after",
    "before",
    "during",
    "through",
    "among",
    "behind",
    "a",
    "family",
    "two",
    "friends",
    "the",
    "city",
    "war",
    "years",
    "one",
    "summer",
]
PRETRAINING = ("the N is V A", "A and A N", "this N feels A", "what a A N", "N that is A", "its N and N are A", "V A")
TASK = ("i found the N V A", "a A N with A N", "the A N never stops", "A throughout", "full of A N", "you get A N", "A , A", "A")
MARKS = {*" ".join(TASK).split()} - {*" ".join(PRETRAINING).split()} - {*FILLERS}


@dataclass(frozen=True)
class Lengths:
    """Word counts: either log-normal (log_sd set) or normal, clipped to [least, most]."""

    centre: float
    spread: float
    least: int
    most: int
    log: bool

    def draw(self, count: int, random: np.random.Generator) -> list[int]:
        values = random.normal(math.log(self.centre) if self.log else self.centre, self.spread, count)
        return [int(n) for n in np.clip(np.rint(np.exp(values) if self.log else values), self.least, self.most)]


TRAIN = Lengths(7.0, math.sqrt(2 * math.log(9.4 / 7.0)), 1, 52, log=True)
PHRASES = replace(TRAIN, least=2)
"""Pre-training's short half: a sentence of one word is left to the task."""
EVAL = Lengths(19.5, 8.7, 2, 47, log=False)


def sentences(count: int, lengths: Lengths, templates: tuple[str, ...], *seed: int) -> list[tuple[str, int]]:
    """(sentence, label) pairs; label 1 is positive. Labels are balanced up to chance; deterministic by seed."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    return [
        (_sentence(n, label, templates, random), int(label)) for n, label in zip(lengths.draw(count, random), labels, strict=True)
    ]


def _sentence(words: int, label: int, templates: tuple[str, ...], random: np.random.Generator) -> str:
    """The first adjective has the label's polarity, one in ten of the others has not."""
    slots = _slots(words, templates, random)
    while templates == TASK and words > 1 and not MARKS.intersection(slots):
        slots = _slots(words, templates, random)
    first = slots.index("A")
    return " ".join(_word(slot, label, random, 0.0 if i == first else 0.1) for i, slot in enumerate(slots))


def _slots(words: int, templates: tuple[str, ...], random: np.random.Generator) -> list[str]:
    """Clauses and fillers until the length is reached, at least one of them with an adjective."""
    slots: list[str] = []
    while len(slots) < words:
        clause = templates[random.integers(len(templates))].split()
        if len(clause) > words - len(slots):
            clause = ["FILL"] * (words - len(slots)) if "A" in slots else ["A"]
        slots += clause
        slots += ["FILL"] * int(random.integers(1, 4) * (random.random() < 0.5))
    return slots[:words]


def _word(slot: str, label: int, random: np.random.Generator, stray: float) -> str:
    if slot == "A":
        polarity = label if random.random() >= stray else 1 - label
        return _pick(POSITIVE if polarity else NEGATIVE, random)
    kinds = {"N": NOUNS, "V": ADVERBS, "FILL": FILLERS}
    return _pick(kinds[slot], random) if slot in kinds else slot


def _pick(words: list[str], random: np.random.Generator) -> str:
    return words[random.integers(len(words))]
