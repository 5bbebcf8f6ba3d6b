"""The command line answers fast: help and `list` import nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

HEAVY = ("torch", "vllm", "transformers", "pandas", "scipy", "datasets")
ANSWERS = (("-m", "bench", "--help"), ("-m", "bench", "list"))


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "--help"]])
def test_help_and_list_import_nothing_heavy(arguments):
    code = f"import sys; from bench.cli import main; main({arguments!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.splitlines()[-1].split()) & set(HEAVY)


def test_help_and_list_cost_less_than_half_of_importing_torch():
    """Processor time, the least of several, taken in turns: a crowded machine slows all three alike. On a quiet one: a fifth."""
    torch = ("-c", "import torch")
    help, listed, least = (
        min(found) for found in zip(*([processor_seconds(*it) for it in (*ANSWERS, torch)] for _ in range(3)), strict=True)
    )
    print(f"--help {help * 1e3:.0f} ms, list {listed * 1e3:.0f} ms, importing torch {least * 1e3:.0f} ms")
    assert max(help, listed) < least / 2


def processor_seconds(*arguments: str) -> float:
    """Of a python process that runs to its end; waiting costs nothing."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


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
    lozo = vllm["workloads"]["lozo"]
    assert (lozo["scope"], lozo["lora"], lozo["max_rank"]) == (["lora"], ["dense", "unfused", "fused"], 256)
    mezo = vllm["workloads"]["mezo"]
    assert (mezo["scope"], mezo["lora"]) == (["lora", "full", "adapter"], ["dense", "unfused", "fused"])
    assert outcome.json["executors"]["official"]["workloads"]["mezo"]["lora"] == ["dense"]
    assert outcome.json["executors"]["official"]["workloads"]["lozo"]["kv"] == ["recompute"]
    declared = outcome.json["workloads"]["mezo"]
    assert declared["source"] == "arXiv 2305.17333" and "mean of g Z" in declared["formula"]
    assert "lozo-m" in vllm["workloads"] and "lozo-m" not in outcome.json["executors"]["official"]["workloads"]
    fzoo = outcome.json["workloads"]["fzoo"]
    assert (fzoo["kind"], fzoo["forwards"], fzoo["keeps"]) == ("factorized", "q + 1", "") and "deviation" in fzoo["summary"]
    assert "opt-13b" in outcome.json["models"] and "opt-13b" in outcome.err


def test_list_verbose_shows_the_lengths_of_the_examples(bench):
    outcome = bench("list", "--verbose")
    assert outcome.code == 0
    for task in outcome.json["tasks"]:
        assert task in outcome.err
    assert "rajpurkar/squad" in outcome.err and "--template" in outcome.err


def test_doctor_says_what_runs_here_and_how_to_mend_the_rest(bench):
    outcome = bench("doctor")
    found = {finding["name"]: finding for finding in outcome.json["findings"]}
    assert outcome.code == 0
    assert found["torch"]["ok"] and found["vllm"]["found"] == version("vllm") and found["vllm version"]["ok"]
    assert "V1 model runner" in found["vllm platform"]["found"]
    assert all(finding["mend"] for finding in found.values() if finding["ok"] is False)
    assert json.loads(outcome.out) == outcome.json
