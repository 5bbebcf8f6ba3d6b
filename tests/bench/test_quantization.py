"""`--quantization`: what is refused, and FP8 and 4-bit weights on vLLM beside those of plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from served import Served
from stepping import steps

from bench.data import ModelSource, TaskData
from bench.defaults import complete, complete_all
from bench.errors import UsageError
from bench.executors.vllm import refusals
from bench.executors.vllm.executor import VllmExecutor
from bench.executors.vllm.quantized import encode
from bench.harness import gate
from bench.registry import make_workload
from workloads.models.quantized import quantize
from workloads.models.scope import views
from workloads.models.weights import load_model
from workloads.parameters.formats import to_fp8
from workloads.reference import reference_losses

Make = Callable[..., Any]
FP8 = {"quantization": "fp8", "interval": 3, "learning_rate": 1e-2}
LINEAR = ("QKVParallelLinear", "MergedColumnParallelLinear", "ColumnParallelLinear", "RowParallelLinear")
ADAPTER = {"scope": "adapter", "learning_rate": 1e-2, "eps": 1e-2}

REFUSED = [
    ({"executor": "official"}, "--quantization fp8: --executor official has no such weights; use --executor eager or vllm"),
    ({"quantization": "bitsandbytes"}, "nothing is folded into 4-bit weights; use --scope adapter"),
    ({"workload": "mezo"}, "a probe written into such weights would be rounded away"),
    ({"workload": "mezo", "scope": "full"}, "only linear layers have fewer bits; use --scope lora or adapter"),
    ({"executor": "vllm", "tensor_parallel": 2}, "every rank would scale a part"),
    ({"quantization": "int3"}, "not known; choose one of none, fp8, bitsandbytes"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        complete({"executor": "eager", "device": "cpu", "quantization": "fp8"} | changes)


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0)])
def test_a_gpu_without_fp8_products_is_refused(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    driver = SimpleNamespace(nvmlDeviceGetCudaComputeCapability=lambda _: list(capability))
    monkeypatch.setattr(refusals, "open_nvml", lambda: nullcontext((driver, None)))
    with pytest.raises(UsageError, match="begin with Ada and Hopper") if capability < (8, 9) else nullcontext():
        refusals.check_device("fp8")


def test_the_package_that_packs_4_bits_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pip install bitsandbytes"):
        refusals.check_device("bitsandbytes")


def test_official_runs_beside_it_as_it_is() -> None:
    specs = complete_all({"device": "cpu", "quantization": "fp8"}, ["official", "eager", "vllm"])
    assert [spec.quantization for spec in specs] == ["none", "fp8", "fp8"]


def test_experts_are_refused(tiny_source: Make) -> None:
    source = tiny_source("mixtral")
    with pytest.raises(UsageError, match="experts are not quantised here"):
        quantize(load_model(source, torch.float32, "cpu"), source, "fp8", products=True)


@pytest.fixture(scope="module")
def served(tiny_spec: Make, tiny_source: Make, tiny_task: TaskData) -> Iterator[Callable[[str, str], Served]]:
    """served(architecture, quantization): one engine at a time. Of 4-bit weights there is nothing to put back."""
    current: dict[tuple[str, str], Served] = {}

    def get(architecture: str, quantization: str) -> Served:
        if (architecture, quantization) not in current:
            close()
            workload, changes = (
                ("factorized", FP8)
                if quantization == "fp8"
                else ("mezo", ADAPTER | {"quantization": quantization, "adapter_targets": "all"})
            )
            spec = tiny_spec(workload, "vllm", queries=2, **changes)
            current[architecture, quantization] = Served(tiny_source(architecture), spec, spec, tiny_task)
        return current[architecture, quantization]

    def close() -> None:
        for one in current.values():
            one.executor.close()
        current.clear()

    yield get
    close()


def linear_layers(executor: VllmExecutor) -> dict[str, Any]:
    model = executor._llm.llm_engine.model_executor.driver_worker.worker.model_runner.model
    return {name: module for name, module in model.named_modules() if type(module).__name__ in LINEAR}


MERGED = [
    ("opt", "self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("llama", "mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
]


@pytest.mark.parametrize(("architecture", "fused", "parts"), MERGED)
def test_vllm_holds_the_numbers_of_the_plain_model(architecture: str, fused: str, parts: tuple, served: Make) -> None:
    """FP8, transposed, q, k and v (or gate and up) as one matrix with one scale: bit for bit, from a rounding of its own."""
    engine = served(architecture, "fp8")
    plain = load_model(engine.source, torch.float32, "cpu")
    quantize(plain, engine.source, "fp8", products=False)
    named = views(plain, "lora").items()
    whole = torch.cat([weight for part in parts for name, weight in named if f"layers.0.{part}." in name])
    (layer,) = [module for name, module in linear_layers(engine.executor).items() if f"layers.0.{fused}" in name]
    assert layer.weight.dtype == torch.float8_e4m3fn and layer.weight.shape == whole.t().shape
    assert torch.equal(layer.weight.data.t().float() * layer.weight_scale, whole)


CELLS = [
    ("opt", "lozo", FP8 | {"queries": 2}),
    ("opt", "factorized", FP8 | {"loop": "requests", "lora": "unfused", "batching": "sequential"}),
    ("opt", "lozo-m", FP8 | {"weight_decay": 10.0}),
    ("llama", "lozo", FP8 | {"kv": "recompute"}),
    ("opt", "mezo", ADAPTER | {"quantization": "bitsandbytes", "adapter_targets": "all"}),
    ("opt", "zo-adam", ADAPTER | {"quantization": "bitsandbytes", "loop": "requests"}),
]


@pytest.mark.parametrize(("architecture", "workload", "changes"), CELLS, ids=lambda value: str(value).replace("'", ""))
def test_a_cell_scores_what_the_plain_model_scores_and_moves_as_eager_does(
    architecture: str, workload: str, changes: dict, served: Make, tiny_spec: Make, loaded: Make, tiny_task: TaskData
) -> None:
    """The gate in every step's first score; eager is given the losses of vLLM, for which its parameters have to move alike."""
    engine, spec = served(architecture, changes["quantization"]), tiny_spec(workload, "vllm", **changes)
    features = {"loop": "requests"} if spec.loop == "resident" else {}
    eager = loaded(tiny_spec(workload, "eager", **(changes | features)), engine.source, tiny_task)
    executor, method, batch = engine.by(spec), make_workload(spec), tiny_task.train

    def reference(rows: Any, probes: Any, kind: str) -> torch.Tensor:
        return reference_losses(engine.source, spec, rows, probes, products=kind == "fp8")

    for one in (executor, eager):
        found, _ = gate.check(one, gate.expected(reference, batch, method.plan(0), spec.precision, "cpu"))
        assert found.passed, found.detail
    losses = steps(executor, method, 0, [batch] * 7)
    assert losses.isfinite().all()
    for number, step in enumerate(losses):
        eager.replay(method, number, step)
    ours, theirs = executor.parameters(), eager.parameters()
    assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-6) for name in theirs)
    after, allowed = [one.score(batch, method.plan(7)) for one in (executor, eager)], 2e-5 if "scope" in changes else 4e-3
    assert torch.allclose(*after, rtol=0, atol=allowed)
    assert (after[0] - losses[0]).abs().max() > 2 * allowed


def test_a_fold_moves_the_master_and_rounds_it_into_the_weights_in_place(
    served: Make, tiny_spec: Make, tiny_task: TaskData
) -> None:
    engine, spec = served("opt", "fp8"), tiny_spec("lozo", "vllm", **FP8)
    executor, method = engine.by(spec), make_workload(spec)
    layers = linear_layers(executor)
    before = {name: (layer.weight.data_ptr(), layer.weight.data.float()) for name, layer in layers.items()}
    parts = executor.memory_parts()
    numbers = sum(layer.weight.numel() for layer in layers.values())
    assert parts["master"] == 4 * numbers and executor.work(tiny_task.train, method.plan(0))["fold_bytes_written"] == 5 * numbers
    steps(executor, method, 0, [tiny_task.train] * 4)
    facts = executor.details()
    assert facts["folds"] == 1 and 0 < facts["requantized_fraction"] < 1 and facts["requantized_cosine"] > 0
    for name, layer in layers.items():
        assert layer.weight.data_ptr() == before[name][0] and not torch.equal(layer.weight.data.float(), before[name][1])
        assert torch.equal(layer.weight.data.t().float(), to_fp8(layer.zo_master, layer.weight_scale).float())


def test_a_state_replays_and_restores_bit_for_bit(served: Make, tiny_spec: Make, tiny_task: TaskData) -> None:
    engine, spec = served("opt", "fp8"), tiny_spec("lozo", "vllm", **FP8)
    executor, method, batch = engine.by(spec), make_workload(spec), tiny_task.train
    losses = steps(executor, method, 0, [batch] * 5)
    middle = executor.snapshot()
    losses = torch.cat([losses, steps(executor, method, 5, [batch] * 3)])
    end = executor.checksum()
    executor.restore(middle)
    assert torch.equal(steps(executor, method, 5, [batch] * 3), losses[5:]) and executor.checksum() == end
    again = engine.by(spec)
    for number, step in enumerate(losses):
        again.replay(method, number, step)
    assert again.checksum() == end


def test_padded_weights_get_the_master_where_it_belongs(served: Make) -> None:
    """vLLM's kernel for Hopper pads [in, out] to multiples of 16; here a layer is padded by hand."""
    served("opt", "fp8")  # registers the operators of the CPU
    master, scale = torch.randn(20, 24), torch.tensor([0.01])
    layer = torch.nn.Module()
    layer.weight_scale = scale
    layer.weight = torch.nn.Parameter(torch.zeros(32, 32).to(torch.float8_e4m3fn).t(), requires_grad=False)
    encode(layer, master)
    assert torch.equal(layer.weight.data.t()[:20, :24].float(), to_fp8(master, scale).float())
    assert not layer.weight.data.t()[20:].float().any() and not layer.weight.data.t()[:, 24:].float().any()


def test_one_scope_keeps_no_master(tiny_spec: Make, tiny_source: Make, tiny_task: TaskData, loaded: Make) -> None:
    source: ModelSource = tiny_source("opt")
    spec = tiny_spec("mezo", "vllm", **ADAPTER, quantization="fp8")
    executor = loaded(spec, source, tiny_task)
    try:
        assert executor.memory_parts()["master"] == 0
        assert not any(hasattr(layer, "zo_master") for layer in linear_layers(executor).values())
        assert steps(executor, make_workload(spec), 0, [tiny_task.train] * 2).isfinite().all()
    finally:
        executor.close()
