"""`fused` on a GPU: vLLM's LoRA wrapper with our kernels for resident slots in place of its own for linear layers.

vLLM's kernels serve hundreds of adapters of any rank; a step has a few slots of one small rank, which is what these are for.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_gpu import PunicaWrapperGPU

from bench.executors.vllm import triton_lora


@torch.library.custom_op("zo_bench::lora_linear", mutates_args=("y",))
def lora_linear(
    y: torch.Tensor,
    x: torch.Tensor,
    a: list[torch.Tensor],
    b: list[torch.Tensor],
    mapping: torch.Tensor,
    none: torch.Tensor,
    scale: float,
) -> None:
    """none: vLLM's flag on the CPU that no token has an adapter; what the mapping says is then from an earlier batch."""
    if not none[0]:
        triton_lora.lora_linear(y, x, a, b, mapping, scale)


@lora_linear.register_fake
def _(
    y: torch.Tensor,
    x: torch.Tensor,
    a: list[torch.Tensor],
    b: list[torch.Tensor],
    mapping: torch.Tensor,
    none: torch.Tensor,
    scale: float,
) -> None: ...


class TritonLora(PunicaWrapperGPU):  # type: ignore[misc]  # marked final, which holds for type checkers alone
    """vLLM's own kernels remain for what is no linear layer, and for layers of more slices than ours take."""

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: Any = None,
        **options: Any,
    ) -> None:
        """y [tokens, sum(output_slices)] += scale * x [tokens, in] A^T B^T, each token with its slot's A and B."""
        if len(output_slices) > triton_lora.MAX_SLICES or not options.get("add_inputs", True):
            super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, **options)
            return
        meta = self.token_mapping_meta
        a, b = list(lora_a_stacked), list(lora_b_stacked)
        lora_linear(y, x, a, b, meta.token_lora_mapping, meta.no_lora_flag_cpu, scale)
