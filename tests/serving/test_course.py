"""Steps that an engine takes by itself: their order, and what is told of them. Losses are made up, algorithms are real."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from bench.api import Probe
from bench.data import Batch, Example
from bench.registry import make_workload
from bench.serving.course import MATRICES, Adapter, Course, Scores, received, sent, table
from bench.serving.site import specification

ADAPTERS = [(f"slot{number}", number, "") for number in range(1, 6)]


class Numbers:
    """State and scorer in one: notes what is done to it, and answers an asking once `ready`."""

    def __init__(self, workload: str, loss: float = 1.0, matrices: int = 0) -> None:
        self.workload = make_workload(specification({"workload": workload}))
        self.loss, self.matrices, self.ready, self.broken = loss, matrices, True, False
        self.told, self.asked = list[tuple[object, ...]](), 0

    def apply(self, step: int, losses: list[float]) -> None:
        self.told.append(("apply", step, len(losses)))

    def prepare(self, step: int) -> int:
        if not self.matrices:
            self.told.append(("prepare", step))
        return self.matrices

    def compress(self, step: int, matrices: int) -> int:
        self.told.append(("compress", matrices))
        self.matrices = max(0, self.matrices - matrices)
        return self.matrices

    def write_probes(self, probes: Sequence[Probe]) -> None:
        self.told.append(("write", len(probes)))

    def ask(self, examples: Batch, adapters: Sequence[Adapter]) -> None:
        self.asked = len(adapters)
        self.told.append(("ask", len(examples), self.asked))

    def answers(self) -> Scores | None:
        if self.broken:
            raise RuntimeError("out of memory")
        gap = -self.loss if math.isfinite(self.loss) else math.nan
        return [[[gap * (1 + state), 0.0]] for state in range(self.asked)] if self.ready else None


def batch(number: int = 0) -> Batch:
    return (Example((0, number), ((7,), (9,)), 0),)


def course(numbers: Numbers) -> Course:
    return Course(numbers, numbers, "classification", ADAPTERS)


def run(found: Course, pieces: int = 50) -> None:
    while pieces and found.advance():
        pieces -= 1


def test_an_update_is_applied_when_the_next_step_begins_or_somebody_reads_the_state() -> None:
    numbers = Numbers("lozo")
    found = course(numbers)
    assert not found.waits and not found.advance()
    found.add(3, [batch(), batch()])
    assert found.waits
    run(found)
    assert numbers.told == [("prepare", 3), ("ask", 1, 2), ("apply", 3, 2), ("prepare", 4), ("ask", 1, 2)]
    done = found.take()
    assert [one.step for one in done] == [3, 4] and done[0].end < done[1].end and found.take() == []
    true = torch.nn.functional.cross_entropy(torch.tensor([[-1.0, 0.0], [-2.0, 0.0]]), torch.tensor([0, 0]), reduction="none")
    assert done[0].losses == true.tolist()
    found.settle()
    found.settle()
    assert numbers.told[5:] == [("apply", 4, 2)]


def test_a_step_that_looks_before_it_goes_asks_twice() -> None:
    numbers = Numbers("conservative")
    found = course(numbers)
    found.add(0, [batch()])
    run(found)
    assert numbers.told == [("prepare", 0), ("ask", 1, 2), ("write", 3), ("ask", 1, 3)]
    assert len(found.take()[0].losses) == 5


def test_the_past_is_compressed_a_few_matrices_at_a_time() -> None:
    numbers = Numbers("lozo", matrices=2 * MATRICES + 1)
    found = course(numbers)
    found.add(0, [batch()])
    run(found)
    assert numbers.told == [*[("compress", MATRICES)] * 3, ("prepare", 0), ("ask", 1, 2)]
    assert found.longest_compression_s > 0


def test_held_it_ends_the_step_under_way_and_begins_none() -> None:
    numbers = Numbers("lozo")
    numbers.ready = False
    found = course(numbers)
    found.add(0, [batch(), batch(), batch()])
    run(found)
    assert found.hold() == 1 and found.waits  # its rows have not answered
    numbers.ready = True
    run(found)
    assert [one.step for one in found.done] == [0] and found.hold() == 1 and not found.waits
    found.take()
    assert found.hold() == 0


def test_a_loss_that_is_no_number_ends_it_until_it_is_started_again() -> None:
    numbers = Numbers("lozo", loss=math.inf)
    found = course(numbers)
    found.add(0, [batch(), batch()])
    run(found)
    assert found.error is not None and "step 0: a loss is not finite" in found.error
    assert not found.waits and found.take() == []
    numbers.loss = 1.0
    found.add(0, [batch(), batch()])
    run(found)
    assert found.error is None and [one.step for one in found.take()] == [0, 1]


def test_what_a_scoring_runs_into_ends_training_and_is_told() -> None:
    numbers = Numbers("lozo")
    numbers.broken = True
    found = course(numbers)
    found.add(0, [batch(), batch()])
    run(found)
    assert found.error == "RuntimeError: out of memory" and not found.waits and found.take() == []


@pytest.mark.parametrize("scored", [(), (1, 2)])
def test_examples_are_received_as_they_were_sent(scored: tuple[int, ...]) -> None:
    one = Example((0, 4), ((7, 8), (9, 3, 5)), 1, scored)
    assert received(sent((one,))) == (one,)


def test_examples_have_as_many_options_as_they_have() -> None:
    found = table([[[1.0, 2.0], [3.0]], [[4.0, 5.0], [6.0]]])
    assert found.tolist() == [[[1.0, 2.0], [3.0, -math.inf]], [[4.0, 5.0], [6.0, -math.inf]]]
