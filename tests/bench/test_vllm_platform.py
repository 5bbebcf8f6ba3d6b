"""The CPU platform is chosen only where vLLM itself finds nothing; its operators agree with plain arithmetic."""

from __future__ import annotations

import json
import operator
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data import ModelSource
from bench.errors import UsageError
from bench.executors.vllm.cpu import PLATFORM, select
from bench.executors.vllm.engine import kv_bytes, refusals
from bench.executors.vllm.lora import segments_of
from bench.executors.vllm.lora_meta import fill
from bench.executors.vllm.variables import prepare_environment
from bench.executors.vllm.worker import ZoWorker


def broken() -> str | None:
    raise OSError("no driver library")


@pytest.mark.parametrize("present", ["cuda", "rocm", "tpu", "xpu", "cpu"])
def test_a_built_in_platform_is_left_alone(present: str) -> None:
    plugins = dict.fromkeys(("tpu", "cuda", "rocm", "xpu", "cpu"), lambda: None) | {present: lambda: f"vllm.platforms.{present}"}
    assert select(plugins) is None


def test_without_any_the_reference_platform_is_used() -> None:
    assert select({"cuda": broken, "rocm": lambda: None}) == PLATFORM


def test_segments_are_runs_of_one_slot() -> None:
    assert segments_of([1, 1, -1, 0, 0, 0, 1]) == [(1, 0, 2), (0, 3, 6), (1, 6, 7)]


@pytest.mark.parametrize("slots", [[1] * 5 + [0] * 3, [0, 0, -1, 1, 1], [-1] * 4])
@pytest.mark.parametrize("captured", [[], [1, 2, 4]])
def test_lora_metadata_is_what_vllm_computes_on_the_device(slots: list[int], captured: list[int]) -> None:
    from vllm.lora.ops.triton_ops.lora_kernel_metadata import LoRAKernelMeta

    theirs, ours = (LoRAKernelMeta.make(2, 16, "cpu", captured) for _ in range(2))
    theirs.prepare_tensors(torch.tensor(slots, dtype=torch.int32))
    fill(ours, np.array(slots, dtype=np.int32), torch.from_numpy)
    assert bool(ours.no_lora_flag_cpu) == bool(theirs.no_lora_flag_cpu)
    assert int(ours.num_active_loras_cpu) == int(theirs.num_active_loras_cpu)
    if not bool(theirs.no_lora_flag_cpu):
        for a, b in zip(ours.meta_args(len(slots), True), theirs.meta_args(len(slots), True), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("chosen", ["1", "true"])
@pytest.mark.parametrize(
    ("variable", "why"), [("VLLM_USE_V2_MODEL_RUNNER", "first model runner"), ("VLLM_ENABLE_V1_MULTIPROCESSING", "one process")]
)
def test_a_switch_that_has_to_be_off_is_bad_input(variable: str, why: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, chosen)
    with pytest.raises(UsageError, match=f"{variable}={chosen}: .* {why}.*; unset it"):
        prepare_environment("cpu")


@pytest.mark.parametrize("chosen", ["", "theirs", "zo_bench_cpu,theirs"])
def test_a_list_of_plugins_keeps_ours(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", chosen)
    prepare_environment("cpu")
    assert {*os.environ["VLLM_PLUGINS"].split(",")} == {"zo_bench_cpu", *filter(None, chosen.split(","))}


def test_the_first_model_runner_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    prepare_environment("cpu")
    assert os.environ["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    prepare_environment("cpu")  # a second engine in the process finds what the first has set


def test_a_worker_with_another_model_runner_is_refused() -> None:
    class OtherRunner: ...

    worker = ZoWorker()
    worker.model_runner = OtherRunner()
    with pytest.raises(RuntimeError, match=r"chose the model runner \S*OtherRunner; .* VLLM_USE_V2_MODEL_RUNNER=0"):
        worker.zo_setup(None, {}, [], {}, "classification")  # type: ignore[arg-type]


def test_the_kv_pool_of_a_model_that_brings_its_own_code(tmp_path: Path) -> None:
    """Its config can be read only where the user trusts that code."""
    settings = "model_type, num_hidden_layers, num_attention_heads, hidden_size = 'own', 3, 4, 32"
    code = f"from transformers import PretrainedConfig\n\n\nclass Own(PretrainedConfig):\n    {settings}\n"
    (tmp_path / "own.py").write_text(code)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}))
    source = ModelSource("own", str(tmp_path), "random", trust_remote_code=True)
    trusted = kv_bytes(source, "float16", tokens=32)
    assert trusted == (32 + 2 * 16) * 2 * 3 * 32 * 2  # tokens x (key, value) x layers x width x bytes
    assert kv_bytes(source, "float16", tokens=32, ranks=2) == trusted // 2  # a rank has half of the heads
    with pytest.raises(ValueError, match="trust_remote_code"):
        kv_bytes(ModelSource("own", str(tmp_path), "random"), "float16", tokens=32)


def test_what_vllm_refuses_while_it_loads_is_the_users_to_change() -> None:
    source = ModelSource("tiny", "somewhere", "random")
    lacking = r"--model tiny: .*lacks the operator 'no_such_activation'\); use --executor eager"
    with pytest.raises(UsageError, match=lacking), refusals(source, "cpu"):
        torch.ops._C.no_such_activation(torch.zeros(1))
    with pytest.raises(UsageError, match=r"cannot load it \(Bloom does not support LoRA yet\)"), refusals(source, "cpu"):
        raise ValueError("1 validation error for ModelConfig\n  Bloom does not support LoRA yet. More words")
    with pytest.raises(AttributeError, match="frobnicate"), refusals(source, "cpu"):  # a fault of ours stays a fault
        vars(source)["x"] = operator.attrgetter("frobnicate")(source)
