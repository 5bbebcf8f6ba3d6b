"""The Triton kernels as they are launched, compiled for an H200 and an A100 on this machine: each fits what a block may have."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler as nvidia
from triton.compiler import ASTSource

from bench.executors.vllm import triton_attention, triton_lora
from bench.executors.vllm.engine import RANKS
from workloads.parameters import fold_kernel

SHARED = {90: 227 * 1024, 80: 163 * 1024}
"""Compute capability -> bytes of shared memory that one block may have: an H100 or H200, an A100."""
SPILLED = {"_lora_expand": 64} if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 8) else {}
"""Bytes that a kernel may spill: none with the default's Triton; with 3.8, vLLM 0.33's, a few at ranks above 64."""
TYPES = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}


@pytest.fixture(params=SHARED, ids=["sm_90", "sm_80"])
def card(request: pytest.FixtureRequest) -> int:
    return int(request.param)


class Launches:
    """Stands where a kernel stands: a launch compiles it for its arguments, as Triton would on the GPU."""

    def __init__(self, kernel: Any, folder: Path, capability: int) -> None:
        self.kernel, self.cubin, self.capability, self.count = kernel, folder / "cubin", capability, 0

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self.launch

    def launch(self, *given: Any, num_warps: int = 4, **constants: Any) -> None:
        names = self.kernel.arg_names
        arguments = dict(zip(names, given, strict=False))
        assert arguments.keys() | constants.keys() == set(names)
        signature = {n: "constexpr" if n in constants else _type(arguments[n]) for n in names}
        even = [n for n, value in arguments.items() if n != "seed" and _even(value)]
        attributes = {(names.index(n),): [["tt.divisibility", 16]] for n in even}
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constants, attrs=attributes)
        built = triton.compile(source, target=GPUTarget("cuda", self.capability, 32), options={"num_warps": num_warps})
        self.cubin.write_bytes(built.asm["cubin"])
        tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
        usage = subprocess.run([tool, "--dump-resource-usage", self.cubin], capture_output=True, text=True, check=True)
        registers, stack = map(int, re.findall(r"REG:(\d+) STACK:(\d+)", usage.stdout)[0])
        print(f"{self.kernel.__name__}: {registers} registers, {stack} bytes spilled, {built.metadata.shared} bytes shared")
        assert built.metadata.shared <= SHARED[self.capability] and stack <= SPILLED.get(self.kernel.__name__, 0)
        self.count += 1


def _type(value: Any) -> str:
    return TYPES[value.dtype] if isinstance(value, torch.Tensor) else "fp32" if isinstance(value, float) else "i32"


def _even(value: Any) -> bool:
    number = value.data_ptr() if isinstance(value, torch.Tensor) else value
    return isinstance(number, int) and number % 16 == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("rank", "single"), [(2, False), (128, True), (128, False)])
def test_the_fold_kernel(
    dtype: torch.dtype, rank: int, single: bool, card: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launches = Launches(fold_kernel._fold, tmp_path, card)
    monkeypatch.setattr(fold_kernel, "_fold", launches)
    weights = {"a": torch.zeros(256, 64, dtype=dtype), "b": torch.zeros(64, 256, dtype=dtype)}
    u, vt = torch.zeros(320 * rank, dtype=dtype if single else torch.float32), torch.zeros(320 * rank, dtype=dtype)
    fold = fold_kernel.FusedFold(weights, {name: tuple(weight.shape) for name, weight in weights.items()})
    fold(u, vt, torch.zeros(()), rank, 7)
    assert launches.count == 2


@pytest.mark.parametrize("rank", [8, *RANKS[4:]])
def test_the_lora_kernels(rank: int, card: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernels = [Launches(triton_lora._lora_shrink, tmp_path, card), Launches(triton_lora._lora_expand, tmp_path, card)]
    monkeypatch.setattr(triton_lora, "_lora_shrink", kernels[0])
    monkeypatch.setattr(triton_lora, "_lora_expand", kernels[1])
    half: dict[str, Any] = {"dtype": torch.float16}
    a, b = [torch.zeros(2, 1, rank, 2048, **half)] * 3, [torch.zeros(2, 1, 2048, rank, **half)] * 3
    x, y = torch.zeros(448, 2048, **half), torch.zeros(448, 6144, **half)
    triton_lora.lora_linear(y, x, a, b, torch.zeros(448, dtype=torch.int32), 1.0)
    assert [kernel.count for kernel in kernels] == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("head", "group"), [(64, 1), (80, 1), (128, 4), (256, 2)])
def test_attention_over_packed_rows(
    dtype: torch.dtype, head: int, group: int, card: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launches = Launches(triton_attention._packed, tmp_path, card)
    monkeypatch.setattr(triton_attention, "_packed", launches)
    query, key = torch.zeros(448, 8, head, dtype=dtype), torch.zeros(448, 8 // group, head, dtype=dtype)
    first = torch.zeros(448, dtype=torch.int32)
    triton_attention.packed_attention(query, key, key, first, 0.1, torch.empty_like(query))
    assert launches.count == 1
