"""The platform class vLLM is given on the CPU: its own CPU platform, with our grouped LoRA wrapper."""

from vllm.platforms.cpu import CpuPlatform


class ReferenceCpuPlatform(CpuPlatform):
    @classmethod
    def get_punica_wrapper(cls) -> str:
        return "bench.executors.vllm.lora.GroupedLora"
