"""Medians, intervals and verdicts, against plain calculations and against what is known of the data's origin."""

import random
import statistics

import pytest

from analysis.statistics import Ratio, ratio, summarize, times


def numbered(values):
    return dict(enumerate(values))


def test_summary_is_the_textbook_one():
    values = [3.0, 1.0, 2.0, 5.0, 4.0]
    found = summarize(values)
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    assert (found.median, found.q1, found.q3, found.n, found.iqr) == (median, q1, q3, 5, q3 - q1)


def test_no_values_are_an_error():
    with pytest.raises(ValueError, match="no values"):
        summarize([])
    with pytest.raises(ValueError, match="no values"):
        ratio({}, {1: 1.0})


def test_ratio_above_one_means_the_candidate_is_faster():
    found = ratio(numbered([2.0, 2.1, 1.9, 2.0]), numbered([1.0, 1.05, 0.95, 1.0]))
    assert found.value == pytest.approx(2.0)
    assert found.verdict == "2.0x faster"
    assert ratio(numbered([1.0, 1.05, 0.95]), numbered([1.3, 1.35, 1.25])).verdict == "1.3x slower"


def test_a_sample_against_itself_shows_no_difference():
    sample = numbered([1.0, 1.5, 0.7, 1.1])
    found = ratio(sample, sample)
    assert (found.value, found.low, found.high, found.verdict) == (1.0, 1.0, 1.0, "no clear difference")


def test_fewer_than_three_units_give_a_ratio_only():
    found = ratio(numbered([2.0, 2.0]), numbered([1.0, 1.0]))
    assert (found.value, found.low, found.high, found.verdict) == (2.0, None, None, "too few sessions")


def test_size_without_significance_and_significance_without_size_are_approximate():
    assert ratio(numbered([0.5, 1.5, 2.5]), {"a": 0.4, "b": 1.0, "c": 2.6}).verdict == "~1.5x"
    assert ratio(numbered([1.021, 1.02, 1.02]), numbered([1.0, 1.0, 1.0])).verdict == "~1.02x"


def test_noise_around_one_is_no_clear_difference():
    assert Ratio(1.01, 0.98, 1.04, 8, True).verdict == "no clear difference"


def test_pairing_removes_what_both_sides_share():
    """A drift of the machine that hits both sides of a pair alike does not widen the paired interval."""
    drift = [1.0, 1.4, 0.8, 1.2, 0.9, 1.1]
    reference, candidate = [2 * d for d in drift], drift
    paired = ratio(numbered(reference), numbered(candidate))
    unpaired = ratio(numbered(reference), {f"other {i}": value for i, value in enumerate(candidate)})
    assert paired.paired and not unpaired.paired
    assert paired.low == pytest.approx(2.0) and paired.high == pytest.approx(2.0)
    assert unpaired.low < 1.9 and unpaired.high > 2.1


def test_units_without_a_partner_are_left_out_of_a_paired_ratio():
    found = ratio({1: 2.0, 2: 2.0, 3: 2.0, 4: 100.0}, {1: 1.0, 2: 1.0, 3: 1.0})
    assert (found.value, found.n) == (2.0, 3)


def test_the_interval_covers_the_true_ratio_as_often_as_it_says():
    """Sixty draws of 20 pairs with a true ratio of 1.5: a 95 % interval misses about 3 of them, hardly ever 10."""
    generator = random.Random(7)
    missed = 0
    for _ in range(60):
        reference = numbered([1.5 * generator.lognormvariate(0, 0.1) for _ in range(20)])
        candidate = numbered([generator.lognormvariate(0, 0.1) for _ in range(20)])
        found = ratio(reference, candidate)
        missed += not found.low <= 1.5 <= found.high
    assert missed <= 9


def test_times_shows_small_differences():
    assert [times(r) for r in (8.13, 1.02, 0.5, 13.04)] == ["8.1x", "1.02x", "0.5x", "13.0x"]
