"""The path from the official loop to the fastest point: its parts multiply to the total, and wrong material is refused."""

import math
from dataclasses import replace
from itertools import product

import pytest

from analysis.by_task import contributions, features_by_task
from analysis.path import paths
from analysis.points import DENSE, OFF, ON
from analysis.readings import readings
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


RECORDED = {"batching": 1.2, "kv": 1.9, "lora": 1.05}
"""What each feature brings where whole passes are recorded; GAINS is what it brings where the host is the limit."""
LIMITED = {"batching": 1.7, "kv": 1.0, "lora": 1.2}


@pytest.fixture
def on_a_gpu(factorial, make_result):
    """The same run with the runtime as a fourth factor: 2.4 s uncompiled, 1.2 s recorded, 0.9 of the fastest once compiled."""

    def make(**changes):
        found = [r for r in factorial() if r.spec["executor"] != "vllm"]
        for variant, start, gains in (("uncompiled", 2.4, LIMITED), ("recorded", 1.2, RECORDED)):
            for on in product((False, True), repeat=3):
                chosen = dict(zip(ON, on, strict=True))
                features = {name: (ON if switched else OFF)[name] for name, switched in chosen.items()}
                seconds = start / math.prod(gains[name] for name, switched in chosen.items() if switched)
                settings = dict(unit="block", pair_id="p", id=f"{variant}{features}", variant=variant)
                found.append(make_result("vllm", [seconds * b for b in BLOCKS], **settings, **features))
        fastest = 0.9 * 1.2 / math.prod(RECORDED.values())
        found.append(make_result("vllm", [fastest * b for b in BLOCKS], unit="block", pair_id="p", id="fastest", **ON))
        return found

    return make


def test_on_a_gpu_the_runtime_is_a_fourth_factor(on_a_gpu, write):
    full = paths(load_runs(write(*on_a_gpu())))[1]
    assert math.prod(part.ratio.value for part in full.parts) == pytest.approx(full.total.value, rel=1e-12)
    found = {part.name: part.ratio.value for part in full.parts}
    middle = {f: (LIMITED[f] * RECORDED[f]) ** 0.5 for f in ON}  # each feature comes before the runtime in half of the orders
    assert found["batching"] == pytest.approx(middle["batching"])
    assert found["KV handling: prompt and head reuse"] == pytest.approx(middle["kv"])
    assert found["fused LoRA kernels"] == pytest.approx(middle["lora"])
    whole = 2 * math.prod(RECORDED.values())
    assert found["runtime: whole passes as CUDA graphs"] == pytest.approx(whole / math.prod(middle.values()))
    assert found["runtime: torch.compile"] == pytest.approx(1 / 0.9)
    assert full.pairs["KV handling: prompt and head reuse and runtime: whole passes as CUDA graphs"].value == pytest.approx(1.9)


def test_both_readings_are_printed_and_what_differs_most_is_named(on_a_gpu, write):
    (found,) = readings(load_runs(write(*on_a_gpu())))
    for variant, gains in (("uncompiled", LIMITED), ("recorded", RECORDED)):
        assert {f: r.value for f, r in found.shares[variant].items()} == pytest.approx(gains)
        assert found.totals[variant].value == pytest.approx(math.prod(gains.values()))
    assert {f: r.value for f, r in found.changes.items()} == pytest.approx({f: RECORDED[f] / LIMITED[f] for f in ON})
    *lines, last = found.lines
    assert "host-limited" in lines[0] and "as deployed" in lines[1]
    assert last.startswith("KV handling: prompt and head reuse differs most, 1.00 host-limited and 1.90 as deployed: why is not")


def test_the_reason_is_read_from_the_profiles(on_a_gpu, write):
    def with_idle(result):
        share = {"uncompiled": 0.7, "recorded": 0.02}.get(result.spec["variant"], 0.0)
        recorded = {"order": 0.9, "name": 0.08, "unknown": 0.0} if result.spec["variant"] == "recorded" else None
        found = {"buckets": {"gemm": 1 - share}, "idle_s": share, "span_s": 1.0, "recorded": recorded}
        last = replace(result.sessions[-1], findings={"time_breakdown": found})
        return replace(result, sessions=[*result.sessions[:-1], last])

    runs = load_runs(write(*map(with_idle, on_a_gpu())))
    assert "70% of a step host-limited (uncompiled) and 2% of a step as deployed (graphs)" in readings(runs)[0].difference
    assert "91.8% by its place" in paths(runs)[1].recorded and "8.2% by its name alone" in paths(runs)[1].recorded


def test_features_that_do_the_same_in_both_readings_are_not_said_to_differ(on_a_gpu, write, monkeypatch):
    monkeypatch.setitem(globals(), "LIMITED", RECORDED)
    assert "no feature's share differs" in readings(load_runs(write(*on_a_gpu())))[0].difference


def test_a_run_without_recorded_passes_has_one_reading(factorial, on_a_gpu, write):
    assert readings(load_runs(write(*factorial()))) == []
    points = [r for r in on_a_gpu() if (r.spec["variant"], r.spec["lora"]) != ("recorded", "unfused")]
    runs = load_runs(write(*points))
    assert readings(runs) == [] and "runtime: whole passes" not in " ".join(p.name for p in paths(runs)[1].parts)
