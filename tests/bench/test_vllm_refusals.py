"""Families that vLLM cannot run, found out before anything is loaded; what it says of them is what its own classes say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES, checkpoint

from bench.data import ModelSource
from bench.errors import UsageError
from bench.executors.vllm import registry_reader
from bench.executors.vllm.refusals import APART, check_model

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("family", "workload", "message"),
    [
        ("pythia", "lozo", "keeps the weights of GPTNeoXForCausalLM in a form of its own .*; use --executor eager or official$"),
        ("bloom", "mezo", "keeps the weights of BloomForCausalLM in a form of its own"),
        ("falcon", "factorized", "keeps the weights of FalconForCausalLM in a form of its own"),
        ("gpt2", "lozo", "no LoRA for GPT2LMHeadModel; use --executor eager or official, or --lora dense on vllm$"),
        ("stablelm", "factorized", "no LoRA for StableLmForCausalLM; use --executor eager or official$"),
        (
            "olmo2",
            "lozo",
            "runs Olmo2ForCausalLM by transformers' own classes, which the executor does not drive; use --executor",
        ),
        ("mixtral", "lozo", "--weights random: experts are drawn in a form that vLLM does not load; use --executor eager"),
    ],
)
def test_a_family_is_refused_by_name(family: str, workload: str, message: str, tiny_spec: Make, tiny_source: Make) -> None:
    with pytest.raises(UsageError, match=f"^--executor vllm --model tiny-{family}.*{message}"):
        check_model(tiny_spec(workload, "vllm"), tiny_source(family))


def test_what_runs_is_not_refused(tiny_spec: Make, tiny_source: Make) -> None:
    for family in ("opt", "llama", "mistral", "gemma2", "phi3", "qwen3", "cohere"):
        check_model(tiny_spec("lozo", "vllm"), tiny_source(family))
    check_model(tiny_spec("mezo", "vllm", scope="full"), tiny_source("gpt2"))
    experts = ModelSource("tiny", tiny_source("mixtral").path, "pretrained")
    check_model(tiny_spec("lozo", "vllm"), experts)
    with pytest.raises(UsageError, match=r"--scope full: .* or --scope lora, which moves attention and leaves experts"):
        check_model(tiny_spec("mezo", "vllm", scope="full"), experts)


def test_an_architecture_is_known_by_its_model_type_too(tmp_path: Path, tiny_spec: Make) -> None:
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in FAMILIES["pythia"].items() if k != "architectures"}))
    with pytest.raises(UsageError, match="GPTNeoXForCausalLM"):
        check_model(tiny_spec("lozo", "vllm"), ModelSource("own", str(tmp_path), "random"))


def test_the_table_read_from_the_sources_is_vllms_own() -> None:
    """Its registry, and what its classes say of themselves where they can be imported without a GPU."""
    program = """
import json, sys
from bench.executors.vllm.variables import prepare_environment
prepare_environment("cpu")
from importlib import import_module
from vllm.model_executor.models import interfaces, registry
names = json.loads(sys.argv[1])
tables = registry._TEXT_GENERATION_MODELS | registry._TRANSFORMERS_SUPPORTED_MODELS
found = {}
for name in names:
    module, kind = tables[name]
    found[name] = interfaces.supports_lora(getattr(import_module("vllm.model_executor.models." + module), kind))
print(json.dumps({"names": sorted(tables), "lora": found}))
"""
    asked = [config["architectures"][0] for config in FAMILIES.values()]
    asked += [
        "GPTJForCausalLM",
        "BaichuanForCausalLM",
        "OrionForCausalLM",
        "GlmForCausalLM",
        "MiMoForCausalLM",
        "Step1ForCausalLM",
    ]
    asked = sorted(set(asked) & registry_reader.architectures().keys())
    done = subprocess.run([sys.executable, "-c", program, json.dumps(asked)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert sorted(registry_reader.architectures()) == theirs["names"]
    assert {name: registry_reader.supports_lora(name) for name in asked} == theirs["lora"]
    assert {*APART} - {"RWForCausalLM"} <= registry_reader.architectures().keys()  # Falcon's old name, gone in vLLM 0.33


def test_a_run_is_refused_before_it_starts(bench: Make, tmp_path: Path) -> None:
    folder = checkpoint("pythia", tmp_path / "pythia")
    found = bench("run", "--executor", "vllm", "--model", str(folder), "--weights", "random", "--device", "cpu")
    assert found.code == 2 and "GPTNeoXForCausalLM" in found.err and "Traceback" not in found.err
    assert len([line for line in found.err.splitlines() if line.strip()]) <= 2


def test_list_names_the_families(bench: Make) -> None:
    told = bench("list", "--verbose").err
    assert "GPT2LMHeadModel" in told and "GPTNeoXForCausalLM" in told and "of a mixture of experts" in told
    assert "MistralForCausalLM" not in told
