"""The `torch.ops._C` operators that vLLM's CPU platform and its dense decoders name and its stock wheel lacks, in PyTorch.

Importing the module registers them all: attention and its keys and values (`cpu_attention`), activations, norms and rotary
embeddings (`cpu_layers`), rounding to FP8 (`cpu_fp8`), what the worker asks for at its start, and what the sampler asks for from
vLLM 0.33 on.
"""

from __future__ import annotations

import torch

from bench.executors.vllm import cpu_attention, cpu_fp8, cpu_layers  # noqa: F401 - importing them registers their operators
from bench.executors.vllm.cpu_library import operator


@operator("init_cpu_memory_env(int[] nodes) -> str")
def init_cpu_memory_env(nodes: list[int]) -> str:
    return ""


@operator("greedy_argmax(Tensor logits) -> Tensor")
def greedy_argmax(logits: torch.Tensor) -> torch.Tensor:
    """The likeliest token of each row [rows]."""
    return logits.argmax(dim=-1)


@operator("fused_gumbel_argmax(Tensor logits, Tensor seeds) -> Tensor")
def fused_gumbel_argmax(logits: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """A token of each row [rows], drawn from softmax(logits) with that row's seed."""
    noise = [torch.empty_like(row).exponential_(generator=torch.Generator().manual_seed(int(seed)))
             for row, seed in zip(logits, seeds, strict=True)]  # fmt: skip
    return (logits.softmax(-1) / torch.stack(noise)).argmax(dim=-1)
