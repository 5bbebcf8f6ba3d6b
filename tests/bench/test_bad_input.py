"""Bad input: exit code 2, one clear line that names the option and what to do, no traceback, nothing earlier lost."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.config import RunSpec
from bench.defaults import complete
from bench.errors import UsageError
from bench.registry import check

CPU = ("--device", "cpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workload", "sgd"], ["--workload sgd", "lozo", "mezo", "factorized"]),
        (["--executor", "jax"], ["--executor jax", "official", "eager", "vllm"]),
        (["--model", "opt-nine"], ["--model opt-nine", "opt-tiny"]),
        (["--task", "mnist"], ["--task mnist", "sst2"]),
        (["--record", "heat"], ["--record heat", "energy"]),
        (["--rank", "0"], ["--rank 0", "at least 1"]),
        (["--executor", "vllm", "--rank", "513"], ["--rank 513", "at most rank 256 of lozo"]),
        (["--workload", "factorized", "--executor", "vllm", "--rank", "513"], ["--rank 513", "at most rank 512"]),
        (["--lora", "dense", "--batching", "paired"], ["--lora dense --batching paired", "--batching sequential"]),
        (["--interval", "0"], ["--interval 0", "at least 1"]),
        (["--eps", "0"], ["--eps 0", "above 0"]),
        (["--eps", "-0.001"], ["--eps -0.001", "above 0"]),
        (["--eps", "inf"], ["--eps inf", "finite"]),
        (["--batch-size", "0"], ["--batch-size 0", "at least 1"]),
        (["--learning-rate", "nan"], ["--learning-rate nan", "finite"]),
        (["--queries", "0"], ["--queries 0", "at least 1"]),
        (["--steps", "0"], ["--steps 0", "at least 1"]),
        (["--steps", "many"], ["--steps", "many"]),
        (["--sessions", "0"], ["--sessions 0", "at least 1"]),
        (["--timeout", "0"], ["--timeout 0", "positive"]),
        (["--scope", "half"], ["--scope half", "lora", "full"]),
        (["--dtype", "int8"], ["--dtype int8", "float32"]),
        (["--device", "tpu"], ["--device tpu", "cuda"]),
        (["--workload", "mezo", "--lora", "fused"], ["--lora fused", "--lora dense"]),
        (["--executor", "official", "--kv", "shared"], ["--kv shared", "official", "recompute"]),
        (["--executor", "eager", "--loop", "resident"], ["--loop resident", "eager", "requests"]),
        (["--executor", "official", "--directions", "upstream", "--queries", "2"], ["--directions upstream", "one query"]),
        (["--executor", "eager", "--directions", "upstream"], ["--directions upstream", "eager", "shared"]),
        (["--no-profile", "--record", "memory"], ["--no-profile", "--record"]),
        (["--data", "/nowhere/sst2.tsv"], ["--data /nowhere/sst2.tsv", "no such file"]),
        (["--upstream", "/nowhere"], ["--upstream /nowhere", "--executor vllm", "--executor official"]),
        (["--executor", "official", "--upstream", "/nowhere"], ["--upstream /nowhere", "no such folder", "check out 5d1ade5"]),
        (
            ["--executor", "official", "--upstream", ".", "--workload", "factorized"],
            ["princeton-nlp/MeZO", "leave --upstream out"],
        ),
        (["--executor", "official", "--upstream", ".", "--queries", "2"], ["one query", "leave --upstream out"]),
        (["--executor", "official", "--upstream", ".", "--directions", "shared"], ["use --directions upstream"]),
        (["--executor", "vllm", "--scope", "full"], ["--scope full", "vllm with lozo supports lora"]),
        (["--workload", "factorized", "--executor", "vllm", "--scope", "full"], ["--scope full", "supports lora"]),
        (["--seed", "-1"], ["--seed -1", "at least 0"]),
        (["--workload", "fzoo", "--queries", "1"], ["--queries 1", "at least 2"]),
        (["--workload", "three-points", "--learning-rate", "0"], ["--learning-rate 0", "above 0"]),
        (["--workload", "lozo-m", "--executor", "official"], ["--executor official", "running means", "--executor eager"]),
        (["--workload", "lozo-m", "--momentum-state", "redrawn"], ["--momentum-state redrawn", "--momentum-state kept"]),
        (["--workload", "zo-adam", "--momentum-state", "redrawn"], ["--momentum-state redrawn", "7000 directions"]),
        (["--momentum", "1"], ["--momentum 1", "below 1"]),
        (["--momentum", "nan"], ["--momentum nan", "below 1"]),
        (["--weight-decay", "-1"], ["--weight-decay -1", "0 or more"]),
        (["--weight-decay", "3", "--learning-rate", "0.5"], ["--weight-decay 3", "below 1"]),
        (["--lr-schedule", "step"], ["--lr-schedule step", "constant, linear, cosine"]),
        (["--lr-warmup", "500", "--steps", "5", "--warmup", "1"], ["--lr-warmup 500", "6 steps in all"]),
        (["--executor", "official", "--lr-schedule", "cosine"], ["--directions upstream", "constant", "--directions shared"]),
        (["--data-seed", "-1"], ["--data-seed -1", "at least 0"]),
        (["--no-such-option"], ["--no-such-option"]),
    ],
)
def test_one_line_and_exit_code_2(bench, arguments, words):
    outcome = bench("run", *CPU, *arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1 and outcome.err.startswith("error: ")
    assert all(word in outcome.err for word in words), outcome.err


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_adapter_kernels_on_a_gpu_take_16_bits(dtype):
    """Known before any GPU is asked: vLLM's LoRA kernels assert it."""
    spec = RunSpec("lozo", "vllm", "opt-125m", "random", "sst2", dtype, "cuda", "shared", "paired", "shared", "fused", "resident")
    if dtype == "float16":
        check(spec)
        return
    with pytest.raises(UsageError, match=r"--dtype float32: --executor vllm on cuda supports float16, bfloat16"):
        check(spec)


def test_mezo_alone_moves_every_parameter_on_vllm():
    spec = RunSpec(
        "mezo", "vllm", "opt-125m", "random", "sst2", "float32", "cpu", "shared", "sequential", "shared", "dense", "resident"
    )
    check(replace(spec, scope="full"))
    for workload in ("lozo", "factorized"):
        with pytest.raises(UsageError, match=f"--scope full: --executor vllm with {workload} supports lora"):
            check(replace(spec, scope="full", workload=workload))


def test_another_commit_is_refused_before_anything_is_imported_for_it(tmp_path):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "another"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    arguments = ["run", *CPU, "--executor", "official", "--upstream", str(tmp_path), "--results", str(tmp_path / "results")]
    code = f"import sys; from bench.cli import main; print(main({arguments!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False"], done.stderr
    assert done.stderr.count("\n") == 1 and "expected 5d1ade5; clone optsuite/LOZO" in done.stderr
    assert not [path for path in (tmp_path / "results").rglob("*") if path.is_file()]


def test_cuda_without_a_gpu(bench, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    outcome = bench("run", "--device", "cuda")
    assert outcome.code == 2 and "--device cuda" in outcome.err and "--device cpu" in outcome.err


def test_nothing_is_left_of_two_runs_with_bad_data(bench, tmp_path):
    (tmp_path / "bad.csv").write_text("text,label\na,1\n")
    outcome = bench("run", *CPU, "--executor", "eager", "--executor", "official", "--data", str(tmp_path / "bad.csv"))
    assert outcome.code == 2 and "no column 'sentence'" in outcome.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".json", ".jsonl")]


def test_random_opt_tiny_is_not_evaluated_unless_asked():
    assert complete({"executor": "eager", "device": "cpu"}).evaluate
    assert not complete({"executor": "eager", "device": "cpu", "weights": "random"}).evaluate
    with pytest.raises(UsageError, match="random weights means nothing"):
        complete({"executor": "eager", "device": "cpu", "weights": "random", "eval_every": 10})


def test_official_takes_shared_directions_where_upstream_has_none_of_its_own():
    def directions(**given):
        return complete({"executor": "official", "device": "cpu", **given}).directions

    assert directions() == directions(workload="mezo") == directions(queries=1) == "upstream"
    assert directions(queries=2) == directions(workload="factorized") == "shared"


@pytest.mark.parametrize("folder", ["/dev/null/results", "/proc/results"])
def test_an_unwritable_results_folder(bench, fake, folder):
    outcome = fake("--results", folder)
    assert outcome.code == 2 and f"--results {folder}" in outcome.err and outcome.err.count("\n") == 1


def test_bad_input_found_inside_a_session_is_bad_input_too(fake, script, tmp_path):
    outcome = fake("--data", script(speed=3))
    assert outcome.code == 2 and "unknown fields speed" in outcome.err and outcome.err.count("\n") == 1
    assert list((tmp_path / "results" / "local").iterdir()) == []


def test_bad_input_loses_no_earlier_result(fake, bench, tmp_path):
    path = Path(fake("--sessions", "1").json["path"])
    before = path.read_bytes()
    assert bench("run", "--rank", "0").code == 2
    assert path.read_bytes() == before


def test_an_unexpected_error_is_one_line_and_exit_code_1(bench, monkeypatch):
    def break_down(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("bench.commands.run.complete_all", break_down)
    outcome = bench("run", *CPU)
    assert outcome.code == 1 and outcome.err.count("\n") == 1 and "RuntimeError: no such luck" in outcome.err


@pytest.mark.parametrize("arguments", [["run", "--rank", "0", "--device", "cpu"], ["fly"], ["run", "--steps"]])
def test_as_a_real_process(arguments):
    done = subprocess.run([sys.executable, "-m", "bench", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr + done.stdout
