"""The command line answers fast: help and `list` import nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "vllm", "transformers", "pandas", "scipy", "datasets")


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "--help"]])
def test_help_and_list_import_nothing_heavy(arguments):
    code = f"import sys; from bench.cli import main; main({arguments!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.splitlines()[-1].split()) & set(HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_answers_in_half_a_second(arguments):
    """The best of five tries: a busy machine may slow any one of them."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "bench", *arguments], capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    print(f"{' '.join(arguments)}: {min(times) * 1e3:.0f} ms")
    assert min(times) < 0.5


def test_every_help_line_of_run_states_its_default():
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", "--help"], capture_output=True, text=True, env={"COLUMNS": "400"}
    )
    lines = [line for line in done.stdout.splitlines() if " --" in line and "--help" not in line and "Usage" not in line]
    assert len(lines) >= 30
    assert [line for line in lines if "[default: " not in line] == []


def test_list_shows_what_each_cell_supports(bench):
    outcome = bench("list")
    assert outcome.code == 0
    vllm = outcome.json["executors"]["vllm"]
    assert vllm["workloads"]["lozo"] == {"scope": ["lora"], "lora": ["dense", "unfused", "fused"]}
    assert vllm["workloads"]["mezo"]["lora"] == ["dense"]
    assert outcome.json["executors"]["official"]["kv"] == ["recompute"]
    assert "opt-13b" in outcome.json["models"] and "opt-13b" in outcome.err


def test_list_verbose_shows_the_lengths_of_the_examples(bench):
    outcome = bench("list", "--verbose")
    assert outcome.code == 0 and "words" in outcome.err


def test_doctor_says_what_runs_here_and_how_to_mend_the_rest(bench):
    outcome = bench("doctor")
    found = {finding["name"]: finding for finding in outcome.json["findings"]}
    assert outcome.code == 0
    assert found["torch"]["ok"] and found["vllm"]["found"] == "0.26.0"
    assert "V1 model runner" in found["vllm platform"]["found"]
    assert all(finding["mend"] for finding in found.values() if finding["ok"] is False)
    assert json.loads(outcome.out) == outcome.json
