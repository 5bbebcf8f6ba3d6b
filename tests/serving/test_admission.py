"""Who may enter a round, by policy; and the controller against a queue of its own, whose truth is known."""

from __future__ import annotations

import random

import pytest

from bench.errors import UsageError
from bench.serving.admission import ALONE_S, FIRST, LEAST, Admission, Policy, Slo, percentile
from bench.serving.waits import Waits

MOST = 512


def admission(name: str, slo: str = "ttft_p99=+15%") -> Admission:
    return Admission(Policy.of(name, 64, slo, MOST))


@pytest.mark.parametrize(
    ("name", "nobody", "decoding", "burst"),
    [("none", MOST, MOST, MOST), ("fixed", 64, 64, 64), ("idle-only", MOST, 0, 0), ("controller", MOST, 64, 0)],
)
def test_what_a_round_takes(name: str, nobody: int, decoding: int, burst: int) -> None:
    found = admission(name)
    assert found.allowed(0.0, waiting=0, users=0) == nobody
    assert found.allowed(1.0, waiting=0, users=3) == decoding
    assert found.allowed(2.0, waiting=5, users=8) == burst
    assert found.allowed(2.1, waiting=0, users=3) == decoding  # and it recovers with the next round


def test_after_its_share_of_the_time_training_rests_while_users_are_about() -> None:
    found = admission("controller")
    found.allowed(0.0, waiting=0, users=1)
    found.spent(1.0, 0.010)
    rest = 0.010 * (1 / FIRST - 1)
    assert found.rests(1.0 + 0.9 * rest) and found.allowed(1.0 + 0.9 * rest, waiting=0, users=1) == 0
    assert not found.rests(1.0 + 1.1 * rest) and found.allowed(1.0 + 1.1 * rest, waiting=0, users=1) == 64
    found.spent(2.0, 0.010)
    found.spent(2.010, 0.010)  # what comes before the rest is over makes it longer
    assert found.rests(2.0 + 1.9 * rest) and not found.rests(2.0 + 2.1 * rest)


def test_after_a_user_left_the_controller_stays_careful_for_a_while() -> None:
    found = admission("controller")
    found.allowed(0.0, waiting=0, users=1)
    assert found.allowed(ALONE_S - 0.1, waiting=0, users=0) < MOST
    found.spent(ALONE_S - 0.1, 1.0)
    assert found.allowed(ALONE_S + 0.1, waiting=0, users=0) == MOST


def queue(found: Admission, users: int, load: float) -> tuple[list[float], list[float]]:
    """Waits for a first token, without training and with it, of requests of about 10 ms that come at random, with passes of 6 ms
    between them when the controller lets training in. The waits without it are of a queue of their own."""
    draw, each, waits, at, now, free = random.Random(1), 0.006, Waits(), 0.0, 0.0, 0.0
    alone, both = [], []
    for _ in range(users):
        at += draw.expovariate(load / 0.010)
        needs = 0.010 * draw.uniform(0.5, 1.5)
        free = max(free, at) + needs
        alone.append(free - at)
        while now < at:  # nobody waits
            if found.allowed(now, waiting=0, users=1) == 0:
                now = min(at, now + 0.001)
                continue
            waits.train(now, now + each)
            now += each
            found.spent(now, each)
        now = max(now, at) + needs
        found.first_token(now - at, waits.serve(now, [at], [10]))
        both.append(now - at)
    return alone, both


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("allowed_share", [0.05, 0.15, 0.5])
def test_the_controller_settles_where_the_tail_is_what_was_asked_for(allowed_share: float, load: float) -> None:
    found = admission("controller", f"ttft_p99=+{100 * allowed_share:g}%")
    alone, both = (waits[4000:] for waits in queue(found, 20000, load))
    tails = percentile(both, 0.99) / percentile(alone, 0.99) - 1
    assert tails <= 1.2 * allowed_share
    assert tails >= 0.2 * allowed_share or found.share <= LEAST or found.share >= 1 - load  # which is all there is


def test_a_bound_in_milliseconds_is_kept_too() -> None:
    found = admission("controller", "ttft_p99=30ms")
    for _ in range(2000):
        added = 0.020 * found.share
        found.first_token(0.025 + added, added)
    assert 0.029 < 0.025 + 0.020 * found.share < 0.0305


@pytest.mark.parametrize("slo", ["", "ttft_p99", "ttft_p99=15%", "ttft_p99=+0%", "ttft_p99=-5ms", "tpot_p99=+5%", "ttft_p99=0ms"])
def test_a_bound_that_says_nothing_is_refused(slo: str) -> None:
    with pytest.raises(UsageError, match=r"--slo .*ttft_p99=\+15%"):
        Slo.parse(slo)
