"""vLLM's attention backend for the CPU, over KV blocks of our size."""

from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from bench.executors.vllm.compat import blocks_of
from bench.executors.vllm.engine import BLOCK

ReferenceCpuAttention = blocks_of(CPUAttentionBackend, BLOCK)
