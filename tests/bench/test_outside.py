"""A package of a user's own adds an algorithm: one file, one entry point, no fork. It is really built and installed."""

import json
from pathlib import Path

import pytest
from installed import bench_with

from bench.result import find_results, load_result

PACKAGE = Path(__file__).parents[1] / "outside"


@pytest.fixture(scope="module")
def bench_with_it(tmp_path_factory):
    """The command line of an environment in which the package is installed."""
    return bench_with(PACKAGE, tmp_path_factory.mktemp("installed"))


def test_list_says_where_each_name_comes_from(bench_with_it):
    done = bench_with_it("list")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["packages"] == {"sign-step": "zo-sign-step 1.2", "cut-short": "zo-sign-step 1.2"}
    assert "sign-step" in found["workloads"] and "sign-step" in found["executors"]["vllm"]["workloads"]
    assert "left out" in done.stderr and "half an upload" in done.stderr


def test_the_control_of_learning_is_a_package_too(tmp_path):
    """Its command stands in docs/tasks.md."""
    done = bench_with(PACKAGE.parent / "control", tmp_path)("list")
    assert json.loads(done.stdout.splitlines()[-1])["packages"] == {"coin-toss": "zo-coin-toss 1.0"}


def test_a_broken_one_costs_only_itself(bench_with_it):
    done = bench_with_it("run", "--workload", "cut-short")
    assert done.returncode == 2
    assert "--workload cut-short: zo-sign-step 1.2 cannot be imported (RuntimeError: half an upload)" in done.stderr


def test_a_fourth_workload_runs_on_eager_and_vllm_alike(bench_with_it, tiny_source, tmp_path):
    source = tiny_source("opt", vocab_size=700, max_position_embeddings=128)
    what = ["--workload", "sign-step", "--executor", "eager", "--executor", "vllm", "--model", source.path, "--weights", "random"]
    how = ["--steps", "6", "--warmup", "2", "--interval", "3", "--learning-rate", "1e-4", "--sessions", "1"]
    done = bench_with_it("run", *what, *how, "--record", "counters", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    eager, vllm = sorted(map(load_result, find_results([tmp_path])), key=lambda result: result.spec["executor"])
    for ours, theirs in zip(eager.sessions[0].losses, vllm.sessions[0].losses, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-5)
    counters = {result.spec["executor"]: result.sessions[0].findings["counters"] for result in (eager, vllm)}
    work = {name: found["work"] for name, found in counters.items()}
    assert work["eager"]["forwards"] == work["vllm"]["forwards"] == 1
    assert work["eager"]["tokens_real"] >= work["vllm"]["tokens_scored"] == counters["vllm"]["required"]["tokens"]
    assert work["vllm"]["weight_bytes_written"] == 0
