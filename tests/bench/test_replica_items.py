"""How a step is cut into items, and one loss made of theirs: that of the minibatches, however they are cut."""

from __future__ import annotations

import pytest

from bench.api import Direction, Probe
from bench.data import Example, Minibatches
from bench.executors.replicated.items import combine, cut
from workloads.tasks.passes import passes

DIRECTIONS = [Direction("dense", 0, 0, query) for query in range(2)]
PROBES = [Probe(direction, shift) for direction in DIRECTIONS for shift in (1e-3, -1e-3)]


def example(answer: int) -> Example:
    return Example((1, 2), (tuple(range(answer)), (1,)), 0)


STEP = Minibatches((tuple(map(example, (1, 2, 9))), tuple(map(example, (4, 1, 1)))))


@pytest.mark.parametrize("objective", ["classification", "nll"])
@pytest.mark.parametrize("shares", [1, 2, 3])
@pytest.mark.parametrize("batch", [STEP, STEP.parts[0]], ids=["accumulated", "one minibatch"])
def test_any_cut_gives_the_loss_of_the_undivided_minibatches(batch, shares, objective):
    losses = {item: float(len(item.options[0]) ** 2) for item in batch}

    def mean(examples, probe):
        """Of the examples, or of all tokens of their answers: what a forward over them returns."""
        counts = [1 if objective == "classification" else len(e.options[0]) for e in examples]
        return sum(c * losses[e] for c, e in zip(counts, examples, strict=True)) / sum(counts) + probe

    items = cut(PROBES, batch, shares)
    found = [[mean(batch[start:stop], probe) for probe in range(first, last)] for first, last, start, stop in items]
    undivided = passes(batch, objective, len, 0)
    truth = [sum(part.share * mean(part.examples, probe) for part in undivided) for probe in range(len(PROBES))]
    assert combine(found, items, len(PROBES), batch, objective).tolist() == pytest.approx(truth, rel=1e-6)
    assert sorted({item[:2] for item in items}) == [(0, 2), (2, 4)]
    assert len(items) == 2 * shares * (2 if batch is STEP else 1)
