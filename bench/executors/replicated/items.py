"""A step cut into items of work: the probes of one direction on one share of the minibatch.

The cut depends on the specification alone, never on how many replicas there are: every item is a forward of its own wherever it
is run, so one replica and a hundred score the same losses to the last bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise

import torch

from bench.api import Probe
from bench.data import Batch, Example, Objective, TaskData, minibatches
from workloads.tasks.passes import weight

Item = tuple[int, int, int, int]
"""Probes from, to (in plan order), examples from, to."""
Span = tuple[int, int]
Batches = list[int | Example]
"""Examples as their numbers in the task; one that the task does not have goes as it is."""
PIECE = 64
"""Examples of an evaluation that are scored as one item."""


def cut(probes: Sequence[Probe], batch: Batch, shares: int) -> list[Item]:
    """The items of a step, direction after direction; shares: of every minibatch, at most one for each of its examples."""
    bounds, start = list[Span](), 0
    for part in minibatches(batch):
        many = min(shares, len(part))
        bounds += pairwise([start + len(part) * share // many for share in range(many + 1)])
        start += len(part)
    spans, at = [], 0
    for _, run in groupby(probes, key=lambda probe: probe.direction):
        spans.append((at, at := at + sum(1 for _ in run)))
    return [(*span, *bound) for span in spans for bound in bounds]


def pieces(examples: int) -> list[Span]:
    """An evaluation in pieces."""
    return [(start, min(start + PIECE, examples)) for start in range(0, examples, PIECE)]


def combine(
    found: Sequence[Sequence[float]], items: Sequence[Item], probes: int, batch: Batch, objective: Objective
) -> torch.Tensor:
    """Losses [probes], float32, from those of the items: a share counts by what it holds of its minibatch, all of which count
    alike.

    Added up in float64 and in the items' order, whoever was first.
    """
    parts = minibatches(batch)
    ends = list(accumulate(len(part) for part in parts))
    whole = [weight(part, objective) for part in parts]
    total = torch.zeros(probes, dtype=torch.float64)
    for losses, (first, last, start, stop) in zip(found, items, strict=True):
        share = weight(batch[start:stop], objective) / (whole[bisect_right(ends, start)] * len(parts))
        total[first:last] += share * torch.tensor(losses, dtype=torch.float64)
    return total.float()


class Numbered:
    """The examples of a task by number, and back: every replica has the task, so a batch travels as a few numbers."""

    def __init__(self, task: TaskData) -> None:
        self.examples = (*task.train, *task.dev, *task.eval, *task.calibration)
        self._number = {example: number for number, example in enumerate(self.examples)}

    def pack(self, batch: Batch) -> Batches:
        return [self._number.get(example, example) for example in batch]

    def unpack(self, packed: Batches) -> list[Example]:
        return [self.examples[one] if isinstance(one, int) else one for one in packed]
