"""Losses that are not finite, or exactly 0, in a narrow type: the layer and the value are named, and what to use instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import checkpoint
from safetensors.torch import load_file, save_file

from bench.data import ModelSource, TaskData
from bench.errors import UsageError
from bench.registry import make_workload
from workloads.models.overflow import refuse_overflow
from workloads.reference import reference_losses

Make = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., ModelSource]:
    """model(name=factor): a tiny Llama with tensors of its checkpoint multiplied."""

    def make(**factors: float) -> ModelSource:
        folder = checkpoint("llama", tmp_path / "model")
        file = folder / "model.safetensors"
        tensors = load_file(file)
        for name, factor in factors.items():
            (key,) = (key for key in tensors if key.endswith(f"{name}.weight") and (".1." in key or "layers" not in key))
            tensors[key] = tensors[key] * factor
        save_file(tensors, file, metadata={"format": "pt"})
        return ModelSource("tiny", str(folder), "pretrained")

    return make


def losses(source: ModelSource, spec: Any, task: TaskData) -> list[float]:
    return reference_losses(source, spec, task.train, make_workload(spec).plan(0)).tolist()


def test_a_value_that_leaves_float16_is_named_with_its_layer(model: Make, tiny_spec: Make, tiny_task: TaskData) -> None:
    source = model(up_proj=2e4, down_proj=1e2)
    found = losses(source, tiny_spec("lozo", "eager", dtype="float16"), tiny_task)
    assert not all(map(torch.isfinite, torch.tensor(found)))
    named = r"--dtype float16: .* the output of model\.layers\.1\.mlp\.\w+ reaches \d\.\d+e\+\d+ in float32, and float16 ends at"
    with pytest.raises(UsageError, match=named + r" 6\.55e\+04; use --dtype bfloat16 or float32"):
        refuse_overflow(source, "float16", "cpu", tiny_task.train, found)
    wide = losses(source, tiny_spec("lozo", "eager", dtype="bfloat16"), tiny_task)
    refuse_overflow(source, "bfloat16", "cpu", tiny_task.train, wide)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_weights_that_are_not_finite_are_named(dtype: str, model: Make, tiny_spec: Make, tiny_task: TaskData) -> None:
    source = model(q_proj=float("nan"))
    found = losses(source, tiny_spec("lozo", "eager", dtype="float32"), tiny_task)
    with pytest.raises(
        UsageError, match=r"model\.layers\.1\.self_attn\.q_proj\.weight is not finite in float32 either; .* damaged"
    ):
        refuse_overflow(source, "float32", "cpu", tiny_task.train, found)


def test_losses_as_they_should_be_pass(model: Make, tiny_spec: Make, tiny_task: TaskData) -> None:
    for dtype in ("float32", "float16", "bfloat16"):
        source = model()
        refuse_overflow(source, dtype, "cpu", tiny_task.train, losses(source, tiny_spec("lozo", "eager", dtype=dtype), tiny_task))
