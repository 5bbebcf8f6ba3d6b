"""Interleaved points with real executors: ablate on eager, resumed; its attribution; reproduce within a budget."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.commands import ablate
from bench.defaults import complete
from bench.registry import check
from bench.result import load_result


def bench(*arguments, results):
    command = [sys.executable, "-m", "bench", *arguments, "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}, done.stderr


@pytest.fixture(scope="module")
def ablation(opt_tiny, tmp_path_factory):
    """One short run of the factorial: a single vllm engine serves its end points."""
    results = tmp_path_factory.mktemp("ablation")
    return results, bench("ablate", "--executor", "eager", "--quick", "--batch-size", "4", results=results)


def test_every_point_is_checked_and_has_its_blocks(ablation):
    _, (code, last, text) = ablation
    assert code == 0, text
    points = [load_result(Path(path)) for path in last["paths"]]
    assert (
        len(points) == 8 + 2 + 1 + 1 + 2 + 2 + 2
    )  # factorial, dense, official, eager at every position and unpadded, vllm twice
    for point in points:
        assert point.pair_id == last["pair_id"]
        assert [session.index for session in point.sessions] == [0, 1, 2]
        folds = [] if point.spec["executor"] == "official" else ["fold"]  # timed apart
        for session in point.sessions:
            assert session.checks[0].passed
            assert sorted(session.kinds) == [*folds, "plain", "plain"] and len(session.step_s) == 2 + len(folds)


def test_the_attribution_is_printed(ablation):
    _, (_, _, text) = ablation
    assert "like for like" in text and "everything on" in text and "KV handling" in text


def test_what_is_read_and_how_large_a_forward_may_be_is_said_once_for_each_executor(ablation):
    _, (_, _, text) = ablation
    said = [line for line in text.splitlines() if line.startswith(("data: ", "vllm: ", "eager: ", "official: "))]
    assert len(said) == len(set(said)) and sum(line.startswith("data: sst2, generated: ") for line in said) == 1
    for executor in ("vllm", "eager", "official"):
        (size,) = [line for line in said if line.startswith(f"{executor}: a step takes ")]
        assert " of at most " in size and f"{executor}: warning: the rows are generated" in text


def test_a_second_call_measures_nothing_again(ablation):
    results, (_, last, _) = ablation
    before = {path: Path(path).read_bytes() for path in last["paths"]}
    code, again, _ = bench("ablate", "--executor", "eager", "--quick", "--batch-size", "4", results=results)
    assert code == 0 and again == last
    assert {path: Path(path).read_bytes() for path in last["paths"]} == before


def test_bad_input_exits_2(tmp_path):
    for arguments, words in [
        (["ablate", "--executor", "official"], "no features to switch"),
        (["ablate", "--workload", "mezo"], "choose lozo or factorized or"),
        (["reproduce", "nothing"], "core-step"),
        (["reproduce", "all", "--budget", "0"], "--budget 0"),
    ]:
        code, _, text = bench(*arguments, results=tmp_path)
        assert code == 2 and words in text and text.count("\n") == 1


def test_on_a_gpu_the_runtime_is_switched_too(monkeypatch):
    """Sixteen points of vLLM, each uncompiled and recorded alike, and the fastest; what is loaded is compiled once."""
    monkeypatch.setattr(ablate, "complete", lambda given: complete(given | {"device": "cpu"}))
    loads, points = ablate._plan({"model": "opt-125m", "weights": "random"}, "vllm")
    assert all(spec.variant in ("", "every position", "unpadded") for _, spec in points)
    monkeypatch.setattr(
        ablate, "complete", lambda given: replace(complete(given | {"device": "cpu"}), device="cuda", dtype="float16")
    )
    loads, points = ablate._plan({"model": "opt-125m", "weights": "random"}, "vllm")
    assert len(points) == len(set(points)) == 16 + 2 + 1 + 4 + 2 + 2 + 2
    factorial = [spec for load, spec in points if loads[load].executor == "vllm" and spec.lora != "dense" and spec.variant]
    switched = {(s.variant, s.batching, s.kv, s.lora) for s in factorial}
    assert switched == {
        (variant, batching, kv, lora)
        for variant in ("uncompiled", "recorded")
        for batching in ("sequential", "paired")
        for kv in ("recompute", "shared")
        for lora in ("unfused", "fused")
    }
    for _, spec in points:
        check(spec)
