"""A step's examples in several forwards, none of them larger than the memory allows, and one loss made of them.

The loss of a minibatch is a mean over its examples (or, of targets, over their tokens): parts of it are averaged by how much of
the minibatch they hold, which is the same number but for rounding. Minibatches of a step that accumulates count alike, as with
gradients that are accumulated.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from bench.data import Batch, Objective, minibatches

Tokens = Callable[[Batch], int]
"""Tokens of one forward over these examples; more examples never have fewer."""


@dataclass(frozen=True)
class Pass:
    """The examples of one forward, and their share of the step's loss."""

    examples: Batch
    share: float


def passes(batch: Batch, objective: Objective, tokens: Tokens, most: int) -> list[Pass]:
    """The forwards of a step, each of at most `most` tokens (0: of any number) and within one minibatch, in order."""
    every = minibatches(batch)
    return [
        Pass(examples, weight(examples, objective) / (weight(part, objective) * len(every)))
        for part in every
        for examples in split(part, tokens, most)
    ]


def split(examples: Batch, tokens: Tokens, most: int) -> Iterator[Batch]:
    """Runs of at most `most` tokens each, as long as they can be. An example is never divided, and may be larger by itself."""
    start, end = 0, len(examples)
    while start < end:
        rest = examples if start == 0 else examples[start:]
        count = len(rest)
        if most and tokens(rest) > most:
            sizes = range(1, count)
            count = max(1, bisect_right(sizes, most, key=lambda size: tokens(rest[:size])))
        yield rest if count == len(rest) else rest[:count]
        start += count


def mean_loss(parts: Sequence[Pass], loss: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
    """The step's loss [...], float32 where there are several parts, from the losses [...] of each."""
    if len(parts) == 1:
        return loss(parts[0].examples)
    return torch.stack([loss(part.examples).float() * part.share for part in parts]).sum(0)


def weight(examples: Batch, objective: Objective) -> int:
    """What a mean over a minibatch counts: examples, or tokens of the targets."""
    if objective == "classification":
        return len(examples)
    return sum(list(example.rows())[example.label][1] for example in examples)
