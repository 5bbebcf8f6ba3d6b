"""The clock of the users' own work, against a queue that is run twice: with training and without it."""

from __future__ import annotations

import math
import random

import pytest

from bench.serving.admission import percentile
from bench.serving.waits import Waits


def test_who_comes_while_training_has_the_engine_is_late_by_the_rest_of_it() -> None:
    waits = Waits()
    waits.train(1.0, 1.5)
    assert waits.serve(1.6, [1.2], [10]) == pytest.approx(0.3)


def test_who_stands_behind_one_that_waited_is_late_too_and_an_idle_engine_forgets() -> None:
    waits = Waits()
    waits.train(1.0, 1.5)
    assert waits.serve(1.6, [1.2], [10]) == pytest.approx(0.3)
    assert waits.serve(1.7, [1.25], [10]) == pytest.approx(0.3)
    assert waits.serve(2.1, [2.0], [10]) == pytest.approx(0.0)


def test_in_a_round_they_share_users_are_late_by_trainings_part_of_it() -> None:
    waits = Waits()
    waits.train(1.0, 1.4, 0.25)
    assert waits.serve(1.4, [1.0], [10]) == pytest.approx(0.1)
    waits.train(1.4, 1.8, 0.5)  # 0.02 s for an answer that is under way, 0.18 s for a prompt that came at 1.5
    assert waits.serve(1.8, [-math.inf, 1.5], [1, 9]) == pytest.approx(1.8 - (1.5 + 0.18))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("training", [0.1, 0.3])
def test_it_finds_the_waits_of_the_same_users_without_training(load: float, training: float) -> None:
    """Requests of about 10 ms come at random; passes of 8 ms run between them, so that they take such a share of idle time."""
    draw, service, each = random.Random(3), 0.010, 0.008
    users, at = [], 0.0
    for _ in range(20000):
        at += draw.expovariate(load / service)
        users.append((at, service * draw.uniform(0.5, 1.5)))
    alone, free = [], 0.0
    for came, needs in users:
        free = max(free, came) + needs
        alone.append(free - came)
    waits, now, found, measured, next_pass = Waits(), 0.0, [], [], 0.0
    for came, needs in users:
        while now < came or (now >= next_pass and now < came + 1e-9):  # nobody waits: training, when its time has come
            if next_pass >= came:
                break
            begin = max(now, next_pass)
            now = begin + each
            waits.train(begin, now)
            next_pass = now + each * (1 / training - 1)
        now = max(now, came) + needs
        late = waits.serve(now, [came], [10])
        measured.append(now - came)
        found.append(now - came - late)
    assert sum(measured) > 1.02 * sum(alone)
    assert sum(found) == pytest.approx(sum(alone), rel=0.02)
    assert percentile(found, 0.99) == pytest.approx(percentile(alone, 0.99), rel=0.03)
