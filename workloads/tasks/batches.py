"""Minibatches in training order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bench.api import Example


def batch_stream(examples: Sequence[Example], batch_size: int, seed: int) -> Iterator[tuple[Example, ...]]:
    """Endless minibatches, reshuffled every epoch; the last of an epoch may be short, as upstream's is."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(examples))
        for start in range(0, len(order), batch_size):
            yield tuple(examples[i] for i in order[start : start + batch_size])
