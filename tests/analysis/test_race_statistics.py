"""Statistics of a race: medians with censored runs, paired comparisons, Holm's correction, on data whose truth is known."""

from __future__ import annotations

from math import exp, inf, log

import numpy as np
import pytest

from analysis.race import Against, compared, holm, markdown, middle, standing
from analysis.race_figures import curve, draw
from bench.raced import Heat, Mark, Race
from bench.result import Reached


def heat(workload, seed, steps, *, tuning=False, rate=1.0, per_step=2, budget=100, loss=1.0):
    looks = range(10, (steps or budget) + 1, 10)
    marks = [Mark(at, at * 0.1, at * per_step, min(1.0, at / 100), loss) for at in looks]
    reached = Reached(steps, steps * 0.1, steps * per_step) if steps else None
    out = None if tuning else 0.9
    return Heat("id", workload, 1, tuning, seed, rate, 1e-3, budget, "passed", marks, reached, out, 0.1, {"weights": 10**6})


def race(*heats):
    spec = {"task": "sst2", "model": "opt-tiny", "executor": "eager", "until": "accuracy=0.9", "eval_every": 10}
    return Race("now", "race", "accuracy", spec, {}, list(heats), {"device": "a CPU"}, {}, {})


@pytest.mark.parametrize("n", [2, 5, 6, 9, 15])
def test_an_interval_covers_the_median_as_often_as_it_says(n):
    drawn = np.random.default_rng(n).exponential(size=(1500, n))
    found = [middle(list(row)) for row in drawn]
    inside = np.mean([one.low <= log(2) <= one.high for one in found])
    assert inside == pytest.approx(found[0].coverage, abs=0.02)
    assert found[0].coverage >= 0.95 or (found[0].low, found[0].high) == (min(drawn[0]), max(drawn[0]))


def test_censored_runs_count_as_more_than_anything():
    found = middle([20, 30, inf, 40, inf])
    assert (found.value, found.low, found.high) == (40, 20, inf) and found.coverage == pytest.approx(0.9375)
    assert middle([inf, inf, inf, 10, 10]).value == inf


def test_pairs_by_seed_give_the_ratio_and_its_interval():
    first, other = {0: 10.0, 1: 100.0, 2: 1000.0}, {0: 20.0, 1: 200.0, 2: 2000.0}
    found = compared(first, other, (0.0, 0.0))
    assert found.ratio == pytest.approx(2) and found.p < 1e-12  # the seeds differ a hundredfold, the pairs not at all
    wider = compared(first, other, (5.0, 5.0))
    assert wider.ratio == pytest.approx(2) and wider.low < 2 < wider.high and wider.p > found.p


def test_chance_is_found_significant_as_often_as_it_should_be():
    random, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        a, b = (dict(enumerate(np.exp(random.normal(4, 0.3, size=5)))) for _ in range(2))
        hits += compared(a, b, (0.0, 0.0)).significant
    assert hits / 1000 == pytest.approx(0.05, abs=0.018)


def test_censored_pairs_get_the_sign_test():
    found = compared(dict.fromkeys(range(6), 10.0), {0: inf, 1: 20, 2: 20, 3: 20, 4: 20, 5: 20}, (1, 1))
    assert found.ratio is None and found.ahead == 6 and found.p == pytest.approx(2 / 2**6)


def test_holm_by_hand():
    found = holm([Against(1.0, 1.0, 1.0, p, 0, 5) for p in (0.04, 0.01, 0.03)])
    assert [one.p for one in found] == pytest.approx([0.06, 0.03, 0.06])


def test_a_standing_ranks_by_minibatches_and_says_what_it_knows(tmp_path):
    """Half the steps at four times the minibatches a step is no win."""
    heats = [heat("cheap", seed, 40 + 10 * (seed % 2)) for seed in range(5)]
    heats += [heat("dear", seed, 20 + 10 * (seed % 2), per_step=8) for seed in range(5)]
    heats += [heat("lame", seed, None if seed else 90) for seed in range(5)]
    heats += [heat("cheap", 1000, None, tuning=True, rate=rate, loss=loss) for loss, rate in ((0.4, 0.3), (0.2, 1.0), (0.9, 3.0))]
    heats += [heat("dear", 1000, None, tuning=True, rate=rate, loss=loss) for loss, rate in ((0.3, 0.3), (0.5, 1.0))]
    found = standing(race(*heats))
    assert [entrant.workload for entrant in found.entrants] == ["cheap", "dear", "lame"]
    assert found.against["dear"].ratio == pytest.approx(exp(np.mean([log(160 / 80), log(240 / 100)] * 2 + [log(160 / 80)])))
    text = markdown([found])
    assert "| lame | 1 | 0.001 | 1 of 5 | > 100 | 90 to > 100 | > 200 |" in text and "| 0.200 to 0.900 |" in text
    assert "censored, did not get there within their steps: lame (4 of 5)" in text
    assert "0.200 to 0.300 between algorithms at their best settings" in text and "tuning mattered more: cheap, dear" in text
    assert "settings at the edge of the grid, a wider one may do better: dear" in text
    minibatches, seconds, scores = curve(found.entrants[2])
    assert list(minibatches[:2]) == [20, 40] and seconds[0] == pytest.approx(1.0) and scores[-1] == 1.0
    draw([found, found], tmp_path / "race.png")
    assert (tmp_path / "race.png").stat().st_size > 10_000
