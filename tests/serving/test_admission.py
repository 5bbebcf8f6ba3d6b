"""Who may enter a round, by policy; and the controller against a queue of its own, whose truth is known."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from bench.errors import UsageError
from bench.serving.admission import ALONE_S, APART, APART_S, BURST, Admission, Policy, Slo, Slowdown, percentile

MOST = 512


def admission(name: str, slo: str = "ttft_p99=+15%", beside: bool = False) -> Admission:
    return Admission(Policy.of(name, 64, slo, MOST), beside)


@pytest.mark.parametrize(
    ("name", "nobody", "decoding", "burst"),
    [("none", MOST, MOST, MOST), ("fixed", 64, 64, 64), ("idle-only", MOST, 0, 0), ("controller", MOST, 32, 0)],
)
def test_what_a_round_takes(name: str, nobody: int, decoding: int, burst: int) -> None:
    found = admission(name)
    assert found.allowed(0.0, waiting=0, users=0) == nobody
    assert found.allowed(1.0, waiting=0, users=3) == decoding
    assert found.allowed(2.0, waiting=5, users=8) == burst
    assert found.allowed(2.1, waiting=0, users=3) == decoding  # and it recovers with the next round


@pytest.mark.parametrize(("waiting", "some"), [(0, True), (BURST, True), (BURST + 1, False), (9, False)])
def test_beside_the_rounds_it_stands_still_in_a_burst_and_now_and_then_to_know_what_it_costs(waiting: int, some: bool) -> None:
    found = admission("controller", beside=True)
    given = [found.allowed(number * APART_S / 4, waiting=waiting, users=10) for number in range(16_000)]
    apart = given.count(0) / len(given)
    assert abs(apart - APART) < 0.02 if some else apart == 1
    assert set(given) == ({0, 32} if some else {0})
    assert sum(a != b for a, b in pairwise(given)) < 16_000 / 4  # it is not stopped and let go with every round
    assert found.allowed(0.0, waiting=0, users=0) > 0


@pytest.mark.parametrize("slower", [0.0, 0.1, 0.5])
def test_what_it_costs_is_read_off_rounds_of_both_kinds(slower: float) -> None:
    draw, found = random.Random(2), Slowdown()
    for number in range(8000):
        beside = bool(number % 8)
        assert number > 1 or found.share() == 0.0
        found.note((0.004 + draw.expovariate(1000)) * (1 + slower * beside), beside)
    assert found.share() == pytest.approx(slower / (1 + slower), abs=0.04)


def test_with_training_beside_them_that_costs_nothing_rounds_get_all_there_is() -> None:
    """And where it makes them twice as long, the least."""
    for added, budget in ((0.0, MOST), (0.015, 32)):
        found = admission("controller", beside=True)
        for _ in range(1000):
            found.first_token(0.030, added)
        assert found.budget == pytest.approx(budget, abs=2)


def test_after_a_user_left_the_controller_stays_careful_for_a_while() -> None:
    found = admission("controller")
    found.allowed(0.0, waiting=0, users=1)
    assert found.allowed(ALONE_S - 0.1, waiting=0, users=0) < MOST
    assert found.allowed(ALONE_S + 0.1, waiting=0, users=0) == MOST


@pytest.mark.parametrize("allowed_share", [0.05, 0.15, 0.5])
def test_the_controller_settles_where_the_tail_is_what_was_asked_for(allowed_share: float) -> None:
    """Users come at random while rounds of the controller's size run: each waits for what is left of one. The tail that it keeps
    is measured by itself, with the last third of the users."""
    draw, found = random.Random(1), admission("controller", f"ttft_p99=+{100 * allowed_share:g}%")
    alone, both = [], []
    for number in range(6000):
        own = 0.020 + draw.expovariate(1 / 0.004)
        added = draw.random() * (0.001 + found.budget * 60e-6)
        found.first_token(own + added, added)
        if number > 4000:
            alone.append(own)
            both.append(own + added)
    tails = percentile(both, 0.99) / percentile(alone, 0.99) - 1
    assert tails <= 1.5 * allowed_share
    assert tails >= 0.3 * allowed_share or found.budget == 32


def test_a_bound_in_milliseconds_is_kept_too() -> None:
    found = admission("controller", "ttft_p99=30ms")
    for _ in range(500):
        found.first_token(0.025 + found.budget * 60e-6, found.budget * 60e-6)
    assert 0.025 + found.budget * 60e-6 < 0.032
    assert found.budget > 60


@pytest.mark.parametrize("slo", ["", "ttft_p99", "ttft_p99=15%", "ttft_p99=+0%", "ttft_p99=-5ms", "tpot_p99=+5%", "ttft_p99=0ms"])
def test_a_bound_that_says_nothing_is_refused(slo: str) -> None:
    with pytest.raises(UsageError, match=r"--slo .*ttft_p99=\+15%"):
        Slo.parse(slo)
