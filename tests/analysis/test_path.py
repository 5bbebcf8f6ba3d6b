"""The path from the official loop to the fastest point: its parts multiply to the total, and wrong material is refused."""

import math
from dataclasses import replace
from itertools import product

import pytest

from analysis.path import OFF, ON, paths
from analysis.runs import load_runs
from bench.api import UsageError

GAINS = {"batching": 1.5, "kv": 2.0, "lora": 1.0}
BLOCKS = [1.00, 1.02, 0.98, 1.01, 0.99]


@pytest.fixture
def factorial(make_result):
    """An interleaved run: official 8 s, eager dense 4 s, eager off 5 s, vllm's factorial from 3 s down by GAINS, all resident."""

    def make(**changes):
        def point(executor, seconds, **features):
            medians = [seconds * b for b in BLOCKS]
            return make_result(executor, medians, unit="block", pair_id="p", id=f"{executor}{features}", **features, **changes)

        found = [
            point("official", 8.0, directions="shared"),
            point("eager", 4.0, **OFF | {"lora": "dense"}),
            point("eager", 5.0, **OFF),
        ]
        for on in product((False, True), repeat=3):
            chosen = dict(zip(ON, on, strict=True))
            features = {name: (ON if switched else OFF)[name] for name, switched in chosen.items()}
            gain = math.prod(GAINS[name] for name, switched in chosen.items() if switched)
            found.append(point("vllm", 3.0 / gain, **features))
        return found

    return make


def test_the_parts_multiply_to_the_total(factorial, write):
    like_for_like, full = paths(load_runs(write(*factorial())))
    for path in (like_for_like, full):
        assert math.prod(part.ratio.value for part in path.parts) == pytest.approx(path.total.value)
    assert like_for_like.total.value == pytest.approx(8 / (3 / 1.5))
    assert full.total.value == pytest.approx(8 / (3 / 3.0))
    assert sum(part.saved_s for part in full.parts) == pytest.approx(8 - 1, rel=0.02)


def test_each_part_is_what_was_put_in(factorial, write):
    full = paths(load_runs(write(*factorial())))[1]
    found = {part.name.split(":")[0]: part.ratio.value for part in full.parts}
    expected = {"loop overhead": 2.0, "adapter form": 0.8, "runtime": 5 / 3, "batching": 1.5, "KV handling": 2.0}
    assert found == pytest.approx(expected | {"fused LoRA kernels": 1.0})


def test_a_factor_that_does_nothing_is_reported_as_nothing(factorial, write):
    full = paths(load_runs(write(*factorial())))[1]
    lora = next(part for part in full.parts if part.name == "fused LoRA kernels").ratio
    assert lora.low <= 1 <= lora.high and not lora.significant


def test_a_station_that_is_missing_merges_its_rungs(factorial, write):
    points = [r for r in factorial() if r.spec["executor"] != "eager"]
    full = paths(load_runs(write(*points)))[1]
    assert full.parts[0].ratio.value == pytest.approx(8 / 3)
    assert full.parts[0].name.count(";") == 2


def test_without_the_whole_factorial_there_is_no_path(factorial, write):
    assert paths(load_runs(write(*factorial()[:-1]))) == []


def test_wrong_losses_and_mixtures_are_refused(factorial, write):
    points = factorial()
    with pytest.raises(UsageError, match="wrong"):
        paths(load_runs(write(*points[:-1], replace(points[-1], status="incorrect"))))
    with pytest.raises(UsageError, match="data digest"):
        paths(load_runs(write(*points[:-1], replace(points[-1], data={"digest": "other"}))))


def test_profiles_that_disagree_with_the_clock_are_flagged(factorial, write):
    def with_span(result, factor):
        step = sorted(result.sessions[0].step_s)[1]
        last = replace(result.sessions[-1], findings={"time_breakdown": {"span_s": step * factor}})
        return replace(result, sessions=[*result.sessions[:-1], last])

    points = factorial()
    agreeing = paths(load_runs(write(*(with_span(r, 1.0) for r in points))))[1]
    assert all(part.agrees for part in agreeing.parts)
    skewed = [with_span(r, 3.0 if r.spec["executor"] == "official" else 1.0) for r in points]
    parts = paths(load_runs(write(*skewed)))[1].parts
    assert parts[0].agrees is False and all(part.agrees for part in parts[1:])
