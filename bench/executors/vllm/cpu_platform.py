"""The platform class vLLM is given on the CPU: its own CPU platform, with our attention and our grouped LoRA wrapper."""

from typing import Any

from vllm.platforms.cpu import CpuPlatform
from vllm.v1.attention.backends.registry import AttentionBackendEnum


class ReferenceCpuPlatform(CpuPlatform):
    @classmethod
    def get_attn_backend_cls(cls, *given: Any, **more: Any) -> str:
        chosen: str = super().get_attn_backend_cls(*given, **more)
        plain = chosen == AttentionBackendEnum.CPU_ATTN.get_path()
        return "bench.executors.vllm.cpu_backend.ReferenceCpuAttention" if plain else chosen

    @classmethod
    def get_punica_wrapper(cls) -> str:
        return "bench.executors.vllm.lora.GroupedLora"
