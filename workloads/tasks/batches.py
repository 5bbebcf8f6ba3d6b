"""Minibatches in training order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from bench.data import Batch, Example, Minibatches


def batch_stream(examples: Sequence[Example], batch_size: int, seed: int, accumulate: int = 1) -> Iterator[Batch]:
    """What each step scores, without end: a minibatch, or `accumulate` of them."""
    stream = _minibatches(examples, batch_size, seed)
    while True:
        yield next(stream) if accumulate == 1 else Minibatches(tuple(islice(stream, accumulate)))


def _minibatches(examples: Sequence[Example], batch_size: int, seed: int) -> Iterator[tuple[Example, ...]]:
    """Reshuffled every epoch; the last of an epoch may be short, as upstream's is."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(examples))
        for start in range(0, len(order), batch_size):
            yield tuple(examples[i] for i in order[start : start + batch_size])


def typical(batches: Iterable[Sequence[Example]]) -> Sequence[Example]:
    """Of the batches of the usual size, the one with the median number of prompt tokens: what a profile stands for."""
    found = list(batches)
    size = max(map(len, found))
    ordered = sorted((b for b in found if len(b) == size), key=lambda batch: sum(len(example.prompt) for example in batch))
    return ordered[len(ordered) // 2]


def sum_range(values: Sequence[int], count: int) -> tuple[int, int]:
    """Between what the sum of `count` of these values falls, but for one minibatch in a million (five standard deviations)."""
    middle, margin = count * float(np.mean(values)), 5 * float(np.std(values)) * count**0.5
    low, high = math.floor(middle - margin), math.ceil(middle + margin)
    return max(low, count * min(values)), min(high, count * max(values))
