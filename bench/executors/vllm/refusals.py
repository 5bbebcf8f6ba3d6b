"""What vLLM cannot do with a model, found out from its config.json and vLLM's sources before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from bench.config import RunSpec
from bench.data import ModelSource
from bench.errors import UsageError
from bench.executors.vllm import registry_reader
from bench.nvml import open_nvml
from workloads.models.checkpoint import read_config

APART = ("BloomForCausalLM", "FalconForCausalLM", "GPTNeoXForCausalLM", "GptOssForCausalLM", "RWForCausalLM")
"""Families whose matrices vLLM keeps under other names, or with the rows of queries, keys and values in another order."""
DENSE = ("GPT2LMHeadModel",)
"""Families without LoRA whose weights vLLM keeps so that dense directions move them; the others were not found to be so."""
BORROWED = "transformers"
"""vLLM's module for families that it runs by transformers' own classes, which it changes for the whole process."""
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""How config.json of a mixture of experts calls their number."""
FP8_FROM = (8, 9)
INSTEAD = "use --executor eager or official"


def check_model(spec: RunSpec, source: ModelSource) -> None:
    """UsageError, in one line, for a family that the spec cannot be run on."""
    config = read_config(source)
    family, given = _architecture(config), f"--executor vllm --model {source.name}"
    if family not in registry_reader.architectures():
        return  # a package's own code, or new: vLLM says what it makes of it
    if family in APART:
        raise UsageError(f"{given}: vLLM keeps the weights of {family} in a form of its own that cannot be moved; {INSTEAD}")
    if registry_reader.architectures()[family][0] == BORROWED:
        raise UsageError(
            f"{given}: vLLM runs {family} by transformers' own classes, which the executor does not drive; {INSTEAD}"
        )
    if spec.lora != "dense" and not registry_reader.supports_lora(family):
        raise UsageError(
            f"{given}: vLLM has no LoRA for {family}; {INSTEAD}{', or --lora dense on vllm' if family in DENSE else ''}"
        )
    if spec.device == "cuda" and (spec.quantization, source.weights) == ("bitsandbytes", "random"):
        raise UsageError(
            f"--quantization bitsandbytes --model {source.name} --weights random: vLLM packs 4-bit weights from files alone; "
            "use pretrained weights"
        )
    if any(config.get(key) for key in EXPERTS):
        if spec.quantization != "none":
            raise UsageError(f"{given} --quantization {spec.quantization}: experts are not quantised here; use none")
        if spec.scope == "full":
            raise UsageError(
                f"{given} --scope full: vLLM keeps the experts of {family} in a form of its own that cannot be moved; {INSTEAD}, "
                "or --scope lora, which moves attention and leaves experts and router as they are"
            )
        if source.weights == "random":
            raise UsageError(f"{given} --weights random: experts are drawn in a form that vLLM does not load; {INSTEAD}")


def check_device(quantization: str) -> None:
    """UsageError for a GPU without FP8 products, where vLLM would lay the weights out for another kernel, and where the package
    that vLLM packs 4-bit weights with is not installed."""
    if quantization == "bitsandbytes" and find_spec("bitsandbytes") is None:
        raise UsageError("--quantization bitsandbytes: vLLM packs 4-bit weights by that package; pip install bitsandbytes")
    with open_nvml() as found:
        if quantization == "fp8" and found and tuple(found[0].nvmlDeviceGetCudaComputeCapability(found[1])) < FP8_FROM:
            raise UsageError("--quantization fp8: FP8 products begin with Ada and Hopper, compute capability 8.9; use none")


def families() -> Iterator[str]:
    """Lines of `list --verbose`."""
    table = registry_reader.architectures()
    borrowed = sorted(name for name, (module, _) in table.items() if module == BORROWED)
    without = sorted(name for name in table if not (name in (*APART, *borrowed) or registry_reader.supports_lora(name)))
    yield f"vllm has no LoRA for {', '.join(without)}; with --lora dense it runs {', '.join(DENSE)}"
    yield f"vllm does not run, because vLLM keeps their weights in a form of its own: {', '.join(APART)}"
    yield f"vllm does not run, because vLLM takes them from transformers: {', '.join(borrowed)}"
    yield "of a mixture of experts --scope lora moves attention, on every executor; experts and router stay as they are"


def _architecture(config: dict[str, Any]) -> str:
    """As the file names it, or as transformers would for its model_type."""
    if named := config.get("architectures"):
        return str(named[0])
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(str(config.get("model_type"))))
