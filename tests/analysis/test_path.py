"""The path from the official loop to the fastest point: its parts multiply to the total, and wrong material is refused."""

import math
from dataclasses import replace
from itertools import product

import pytest

from analysis.by_task import contributions, features_by_task
from analysis.path import DENSE, OFF, ON, paths
from analysis.runs import load_runs
from bench.errors import UsageError

GAINS = {"batching": 1.5, "kv": 2.0, "lora": 1.0}
BLOCKS = [1.00, 1.02, 0.98, 1.01, 0.99]


@pytest.fixture
def factorial(make_result):
    """An interleaved run: official 8 s, eager 6 s with logits at every position, 4 s without, 2.5 s unpadded, 3 s as an adapter;
    vllm's factorial from 2.4 s down by GAINS, all resident."""

    def make(**changes):
        def point(executor, seconds, variant="", **features):
            medians, identifier = [seconds * b for b in BLOCKS], f"{executor}{variant}{features}"
            settings = dict(unit="block", pair_id="p", id=identifier, variant=variant)
            return make_result(executor, medians, **settings, **features, **changes)

        found = [
            point("official", 8.0, directions="shared"),
            point("eager", 6.0, "every position", **DENSE),
            point("eager", 4.0, **DENSE),
            point("eager", 2.5, "unpadded", **DENSE),
            point("eager", 3.0, "unpadded", **OFF),
        ]
        for on in product((False, True), repeat=3):
            chosen = dict(zip(ON, on, strict=True))
            features = {name: (ON if switched else OFF)[name] for name, switched in chosen.items()}
            gain = math.prod(GAINS[name] for name, switched in chosen.items() if switched)
            found.append(point("vllm", 2.4 / gain, **features))
        return found

    return make


def test_the_parts_multiply_to_the_total(factorial, write):
    like_for_like, full = paths(load_runs(write(*factorial())))
    for path in (like_for_like, full):
        assert math.prod(part.ratio.value for part in path.parts) == pytest.approx(path.total.value)
    assert like_for_like.total.value == pytest.approx(8 / (2.4 / 1.5))
    assert full.total.value == pytest.approx(8 / (2.4 / 3.0))
    assert sum(part.saved_s for part in full.parts) == pytest.approx(8 - 0.8, rel=0.02)


def test_each_part_is_what_was_put_in(factorial, write):
    full = paths(load_runs(write(*factorial())))[1]
    found = {part.name.split(":")[0]: part.ratio.value for part in full.parts}
    rungs = {"loop overhead": 8 / 6, "last position only": 6 / 4, "padding": 4 / 2.5, "adapter form": 2.5 / 3, "runtime": 3 / 2.4}
    assert found == pytest.approx(rungs | {"batching": 1.5, "KV handling": 2.0, "fused LoRA kernels": 1.0})


def test_a_factor_that_does_nothing_is_reported_as_nothing(factorial, write):
    full = paths(load_runs(write(*factorial())))[1]
    lora = next(part for part in full.parts if part.name == "fused LoRA kernels").ratio
    assert lora.low <= 1 <= lora.high and not lora.significant


def test_a_station_that_is_missing_merges_its_rungs(factorial, write):
    points = [r for r in factorial() if r.spec["executor"] != "eager"]
    full = paths(load_runs(write(*points)))[1]
    assert full.parts[0].ratio.value == pytest.approx(8 / 2.4)
    assert full.parts[0].name.count(";") == 4


def test_without_the_whole_factorial_there_is_no_path(factorial, write):
    assert paths(load_runs(write(*factorial()[:-1]))) == []


def test_wrong_losses_and_mixtures_are_refused(factorial, write):
    points = factorial()
    with pytest.raises(UsageError, match="wrong"):
        paths(load_runs(write(*points[:-1], replace(points[-1], status="incorrect"))))
    with pytest.raises(UsageError, match="data digest"):
        paths(load_runs(write(*points[:-1], replace(points[-1], data={"digest": "other"}))))


def test_profiles_that_disagree_with_the_clock_are_flagged(factorial, write):
    def with_profile(result, factor):
        step = sorted(result.sessions[0].step_s)[1]
        found = {"buckets": {"gemm": 0.7 * step, "attention": 0.2 * step * factor}, "idle_s": 0.1 * step}
        last = replace(result.sessions[-1], findings={"time_breakdown": found})
        return replace(result, sessions=[*result.sessions[:-1], last])

    points = factorial()
    agreeing = paths(load_runs(write(*(with_profile(r, 1.0) for r in points))))[1]
    assert all(part.agrees for part in agreeing.parts)
    skewed = [with_profile(r, 3.0 if r.spec["executor"] == "official" else 1.0) for r in points]
    parts = paths(load_runs(write(*skewed)))[1].parts
    assert parts[0].agrees is False and all(part.agrees for part in parts[1:])


def test_features_stand_beside_one_another_task_by_task(factorial, write):
    """Drawn only where several tasks were ablated; each bar is the contribution that was put in."""
    one = [replace(r, pair_id="q", id=f"q{i}") for i, r in enumerate(factorial(task="boolq"))]
    found = paths(load_runs(write(*factorial(), *one)))
    assert features_by_task(found[:2]) is None
    ratios = contributions(found)
    assert list(ratios) == ["sst2, batch 16", "boolq, batch 16"]
    for each in ratios.values():
        assert [ratio.value for ratio in each.values()] == pytest.approx([1.5, 2.0, 1.0])
    (axes,) = features_by_task(found).axes
    assert {round(1 + bar.get_width(), 6) for bar in axes.patches} == {1.0, 1.5, 2.0}
