"""The `torch.ops._C` operators that vLLM 0.26's CPU platform and its dense decoders name and its stock wheel lacks, in PyTorch.

Importing the module registers them all: attention and its keys and values (`cpu_attention`), activations, norms and rotary
embeddings (`cpu_layers`), and what the worker asks for at its start.
"""

from __future__ import annotations

from bench.executors.vllm import cpu_attention, cpu_layers  # noqa: F401 - importing them registers their operators
from bench.executors.vllm.cpu_library import operator


@operator("init_cpu_memory_env(int[] nodes) -> str")
def init_cpu_memory_env(nodes: list[int]) -> str:
    return ""
