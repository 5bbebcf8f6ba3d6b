"""Attribution recovers what went into made-up step times, and says nothing where there is nothing."""

import math
import random
from itertools import permutations

import pytest

from analysis.attribution import attribute, subsets

FACTORS = ("batching", "kv", "lora")
FOUR = (*FACTORS, "runtime")


def step_times(speedups, interactions=None, *, blocks=40, noise=0.0, drift=0.0, seed=1):
    """Samples of a factorial: 1 s over the product of the factors that are on, times noise and a drift of the whole block."""
    generator = random.Random(seed)
    drifts = [generator.lognormvariate(0, drift) for _ in range(blocks)]
    samples = {}
    for on in subsets(tuple(speedups)):
        gain = math.prod(speedups[f] for f in on)
        gain *= math.prod(g for pair, g in (interactions or {}).items() if set(pair) <= on)
        samples[on] = {("p", b): drifts[b] / gain * generator.lognormvariate(0, noise) for b in range(blocks)}
    return samples


def contains(ratio, truth):
    return ratio.low <= truth <= ratio.high


def test_independent_factors_come_back_exactly():
    truth = {"batching": 1.5, "kv": 3.0, "lora": 1.2}
    found = attribute(step_times(truth))
    assert {f: found.contributions[f].value for f in FACTORS} == pytest.approx(truth)
    assert all(i.value == pytest.approx(1) for i in found.interactions.values())


def test_an_interaction_is_named_and_shared_equally_by_its_two_factors():
    found = attribute(step_times({"batching": 2.0, "kv": 3.0, "lora": 1.0}, {("batching", "lora"): 1.44}))
    assert found.interactions["batching", "lora"].value == pytest.approx(1.44)
    assert found.interactions["batching", "kv"].value == pytest.approx(1.0)
    assert found.contributions["batching"].value == pytest.approx(2.0 * 1.2)
    assert found.contributions["lora"].value == pytest.approx(1.2)


def test_contributions_multiply_exactly_to_the_whole():
    found = attribute(step_times({"batching": 1.7, "kv": 2.2, "lora": 0.9}, {("kv", "lora"): 1.3}, noise=0.1))
    assert math.prod(c.value for c in found.contributions.values()) == pytest.approx(found.total.value, rel=1e-12)


def test_shapley_is_the_mean_over_all_orders_written_plainly():
    samples = step_times({"batching": 1.7, "kv": 2.2, "lora": 0.9}, {("kv", "lora"): 1.3}, blocks=1)
    t = {on: sample["p", 0] for on, sample in samples.items()}
    for factor in FACTORS:
        effects = []
        for order in permutations(FACTORS):
            before = frozenset(order[: order.index(factor)])
            effects.append(math.log(t[before] / t[before | {factor}]))
        assert attribute(samples).contributions[factor].value == pytest.approx(math.exp(sum(effects) / len(effects)))


def test_noise_and_drift_leave_the_truth_inside_the_intervals():
    truth = {"batching": 1.5, "kv": 3.0, "lora": 1.2}
    found = attribute(step_times(truth, {("batching", "kv"): 1.21}, noise=0.05, drift=0.5))
    assert contains(found.contributions["batching"], 1.5 * 1.1)
    assert contains(found.contributions["kv"], 3.0 * 1.1)
    assert contains(found.contributions["lora"], 1.2)
    assert contains(found.interactions["batching", "kv"], 1.21)
    assert contains(found.total, 1.5 * 3.0 * 1.2 * 1.21)
    assert found.total.paired


def test_a_factor_that_does_nothing_is_reported_as_nothing():
    found = attribute(step_times({"batching": 1.0, "kv": 2.0, "lora": 1.0}, noise=0.03))
    assert found.contributions["batching"].verdict == "no difference (within 5 %)"
    assert found.contributions["kv"].verdict == "2.0x faster"


def test_two_blocks_give_no_interval():
    found = attribute(step_times({"batching": 1.5, "kv": 1.5, "lora": 1.5}, blocks=2))
    assert (found.total.low, found.total.verdict) == (None, "undecided: about 1 more session")


def test_points_that_share_no_blocks_are_unpaired():
    samples = step_times({"batching": 1.5, "kv": 3.0, "lora": 1.2}, noise=0.05)
    apart = {on: {(i, unit): value for unit, value in sample.items()} for i, (on, sample) in enumerate(samples.items())}
    found = attribute(apart)
    assert not found.total.paired and contains(found.contributions["kv"], 3.0)


def test_a_missing_point_is_named():
    samples = step_times({"batching": 1.5, "kv": 3.0, "lora": 1.2})
    del samples[frozenset({"kv", "lora"})]
    with pytest.raises(ValueError, match=r"missing kv\+lora"):
        attribute(samples)


HOST_LIMITED = {"batching": 1.4, "kv": 1.0, "lora": 1.2, "runtime": 1.8}
"""A GPU where KV handling saves nothing until the passes are recorded."""


def test_four_factors_share_what_two_and_three_of_them_do_together():
    found = attribute(step_times(HOST_LIMITED, {("kv", "runtime"): 1.96, ("batching", "kv", "lora"): 1.331}))
    together, three = 1.96**0.5, 1.331 ** (1 / 3)
    truth = {"batching": 1.4 * three, "kv": together * three, "lora": 1.2 * three, "runtime": 1.8 * together}
    assert {f: r.value for f, r in found.contributions.items()} == pytest.approx(truth)
    assert found.interactions["kv", "runtime"].value == pytest.approx(1.96)
    assert found.interactions["batching", "runtime"].value == pytest.approx(1)
    assert found.interactions["batching", "lora"].value == pytest.approx(1.331**0.5)  # over half of the orders a third is on
    assert found.total.value == pytest.approx(1.4 * 1.2 * 1.8 * 1.96 * 1.331)


def test_four_factors_close_exactly_and_are_the_mean_over_24_orders():
    samples = step_times(
        HOST_LIMITED, {("kv", "runtime"): 1.9, ("batching", "lora", "runtime"): 0.8}, blocks=5, noise=0.2, drift=0.3
    )
    found = attribute(samples)
    assert len(samples) == 16
    assert math.prod(c.value for c in found.contributions.values()) == pytest.approx(found.total.value, rel=1e-12)
    mean = {on: sum(map(math.log, sample.values())) / len(sample) for on, sample in samples.items()}
    for factor in FOUR:
        effects = []
        for order in permutations(FOUR):
            before = frozenset(order[: order.index(factor)])
            effects.append(mean[before] - mean[before | {factor}])
        assert math.log(found.contributions[factor].value) == pytest.approx(sum(effects) / 24, rel=1e-9)


def test_noise_leaves_the_truth_of_four_factors_inside_the_intervals():
    found = attribute(step_times(HOST_LIMITED, {("kv", "runtime"): 1.96}, blocks=10, noise=0.03, drift=0.5))
    truth = {"batching": 1.4, "kv": 1.4, "lora": 1.2, "runtime": 1.8 * 1.4}
    assert all(contains(found.contributions[f], truth[f]) for f in FOUR)
    assert contains(found.interactions["kv", "runtime"], 1.96) and contains(found.interactions["batching", "kv"], 1.0)
