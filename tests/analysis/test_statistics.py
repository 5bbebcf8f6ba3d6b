"""Ratios, intervals and verdicts, against plain calculations and against what is known of the data's origin."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats
from simulations import NOISES, UNITS, coverage, found, pairs, wrongly_different

from analysis.statistics import Ratio, center, contrasts, ratio, spread, times


def numbered(values):
    return dict(enumerate(values))


def test_the_center_is_the_geometric_mean():
    assert center([1.0, 4.0, 2.0]) == pytest.approx(statistics.geometric_mean([1, 4, 2]))
    assert spread([1.0, math.e]) == pytest.approx(statistics.stdev([0, 1]))
    with pytest.raises(ValueError, match="no values"):
        center([])
    with pytest.raises(ValueError, match="no values"):
        ratio({}, {1: 1.0})


def test_the_interval_is_the_textbook_one():
    """Student's t on the paired differences of logarithms, as scipy has it."""
    a, b = [2.0, 2.3, 1.9, 2.2], [1.0, 1.05, 0.95, 1.2]
    paired = ratio(numbered(a), numbered(b))
    test = stats.ttest_rel(np.log(a), np.log(b)).confidence_interval()
    assert (paired.low, paired.high) == pytest.approx((math.exp(test.low), math.exp(test.high)))
    apart = ratio(numbered(a), {f"other {i}": value for i, value in enumerate(b)})
    test = stats.ttest_ind(np.log(a), np.log(b), equal_var=False).confidence_interval()
    assert (apart.low, apart.high) == pytest.approx((math.exp(test.low), math.exp(test.high)))
    assert paired.paired and not apart.paired and paired.value == pytest.approx(apart.value)


def test_ratio_above_one_means_the_candidate_is_faster():
    found = ratio(numbered([2.0, 2.1, 1.9, 2.0]), numbered([1.0, 1.05, 0.95, 1.0]))
    assert found.value == pytest.approx(2.0)
    assert found.verdict == "2.0x faster"
    assert ratio(numbered([1.0, 1.05, 0.95]), numbered([1.3, 1.35, 1.25])).verdict == "1.3x slower"


def test_a_sample_against_itself_shows_no_difference():
    sample = numbered([1.0, 1.5, 0.7, 1.1])
    found = ratio(sample, sample)
    assert (found.value, found.low, found.high, found.verdict) == (1.0, 1.0, 1.0, "no difference (within 5 %)")


def test_fewer_than_three_units_give_a_ratio_only():
    found = ratio(numbered([2.0, 2.0]), numbered([1.0, 1.0]))
    assert (found.value, found.low, found.high) == (2.0, None, None)
    assert found.verdict == "undecided: about 1 more session"


def test_what_is_not_significant_is_called_undecided_however_large_it_looks():
    found = ratio(numbered([0.5, 1.5, 2.5]), numbered([0.2, 1.4, 2.6]), "block")
    assert found.value > 1.2 and not found.significant
    assert found.verdict.startswith("undecided: about ") and found.verdict.endswith(" more blocks")


def test_what_is_significant_and_small_is_no_difference():
    assert ratio(numbered([1.021, 1.02, 1.02]), numbered([1.0, 1.0, 1.0])).verdict == "no difference (within 5 %)"
    assert Ratio(1.04, 1.01, 1.07, 8, True, 5).verdict == "undecided: about 5 more sessions"


def test_the_sessions_asked_for_would_decide():
    """With as many as it says, and the same mean and spread, the interval leaves 1 outside."""
    generator = np.random.default_rng(3)
    logs = generator.normal(0, 1, 5)
    logs = 0.10 + 0.12 * (logs - logs.mean()) / logs.std(ddof=1)
    found = ratio(numbered(np.exp(logs)), numbered(np.ones(5)))
    assert found.verdict.startswith("undecided") and found.more is not None
    n = 5 + found.more
    assert stats.t.ppf(0.975, n - 1) * 0.12 / n**0.5 <= 0.10 < stats.t.ppf(0.975, n - 3) * 0.12 / (n - 2) ** 0.5


def test_pairing_removes_what_both_sides_share():
    """A drift of the machine that hits both sides of a pair alike does not widen the paired interval."""
    drift = [1.0, 1.4, 0.8, 1.2, 0.9, 1.1]
    reference, candidate = [2 * d for d in drift], drift
    paired = ratio(numbered(reference), numbered(candidate))
    unpaired = ratio(numbered(reference), {f"other {i}": value for i, value in enumerate(candidate)})
    assert paired.low == pytest.approx(2.0) and paired.high == pytest.approx(2.0)
    assert unpaired.low < 1.9 and unpaired.high > 2.1


def test_units_without_a_partner_are_left_out_of_a_paired_ratio():
    found = ratio({1: 2.0, 2: 2.0, 3: 2.0, 4: 100.0}, {1: 1.0, 2: 1.0, 3: 1.0})
    assert (found.value, found.n) == (pytest.approx(2.0), 3)


def test_contrasts_that_add_up_multiply_exactly():
    generator = np.random.default_rng(5)
    samples = [numbered(generator.lognormal(0, 0.2, 6)) for _ in range(3)]
    first, second, whole = contrasts(samples, np.array([[-1.0, 1, 0], [0, -1, 1], [-1, 0, 1]]))
    assert first.value * second.value == pytest.approx(whole.value, rel=1e-12)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("n", UNITS)
def test_a_95_percent_interval_covers_the_truth_about_as_often(n, noise):
    assert 0.92 <= coverage(n, noise) <= 0.99


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("n", UNITS)
def test_of_a_thousand_equal_pairs_at_most_one_in_twenty_is_called_different(n, noise):
    assert wrongly_different(n, noise) <= 0.05


def test_a_difference_of_ten_percent_is_found_at_two_percent_of_noise():
    assert found(5, difference=1.10, noise=0.02) >= 0.90


def test_the_bootstrap_earns_its_place_where_units_are_skewed():
    """One-sided delays on one side only: Student's interval alone covers too little at ten units."""
    generator = np.random.default_rng(11)
    delayed, truth = generator.exponential(0.3, (2000, 10)), 0.3
    low, high = stats.t.interval(0.95, 9, delayed.mean(1), delayed.std(1, ddof=1) / 10**0.5)
    ours = [ratio(numbered(np.exp(row)), numbered(np.ones(10))) for row in delayed]
    student, widened = np.mean((low <= truth) & (truth <= high)), np.mean([r.low <= math.exp(truth) <= r.high for r in ours])
    assert student < 0.93 and widened > 0.94


def test_the_simulated_pairs_are_what_they_say():
    reference, candidate = pairs(20, "shared drift", difference=1.5, seed=1)
    assert np.std(np.log(reference)) > 5 * np.std(np.log(reference) - np.log(candidate))


def test_times_shows_small_differences():
    assert [times(r) for r in (8.13, 1.02, 0.5, 13.04)] == ["8.1x", "1.02x", "0.5x", "13.0x"]
