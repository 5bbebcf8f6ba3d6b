"""Rounding to FP8 on the CPU, where vLLM's wheel names these two operators and lacks them; its products torch has there."""

from __future__ import annotations

import torch

from bench.executors.vllm.cpu_library import operator
from workloads.parameters.formats import fp8_scale, to_fp8


@operator("dynamic_scaled_fp8_quant(Tensor(a!) out, Tensor x, Tensor(b!) scale) -> ()")
def dynamic_scaled_fp8_quant(out: torch.Tensor, x: torch.Tensor, scale: torch.Tensor) -> None:
    """out, x [rows, columns]; scale [1] is written: one for the whole tensor."""
    scale.copy_(fp8_scale(x))
    out.copy_(to_fp8(x, scale))


@operator("static_scaled_fp8_quant(Tensor(a!) out, Tensor x, Tensor scale, int[]? group=None) -> ()")
def static_scaled_fp8_quant(out: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, group: list[int] | None = None) -> None:
    """The same by a scale [1] that is given."""
    out.copy_(to_fp8(x, scale))
