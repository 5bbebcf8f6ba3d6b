"""Linear layers in fewer bits: vLLM's own `quantization="fp8"` with what its weights were made from kept beside them, and 4-bit
numbers for a CPU, where bitsandbytes' kernels are not. Both are known to vLLM through its public hook for quantizations.

vLLM rounds a layer's whole matrix, q, k and v merged, with one scale, and holds it transposed: `weight` [in, out] of FP8,
`weight_scale` [1]. Inputs are rounded row by row, as its kernels for Hopper do it, on a CPU too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from vllm import _custom_ops as ops
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
from vllm.model_executor.layers.quantization.fp8 import Fp8Config
from vllm.model_executor.layers.quantization.online.fp8 import Fp8PerTensorOnlineLinearMethod
from vllm.model_executor.layers.quantization.utils.quant_utils import kFp8DynamicTokenSym

from bench.config import RunSpec
from bench.executors.vllm.views import named_parts
from workloads.directions import Layout
from workloads.parameters.formats import nf4_rounded
from workloads.parameters.requantized import Requantized

FP8, NF4 = "zo_fp8", "zo_nf4"
TYPES = [torch.float16, torch.bfloat16, torch.float32]
MASTER = "zo_master"


def name_for(spec: RunSpec) -> str | None:
    """What vLLM is asked for: its own quantization wherever nothing has to be kept and its kernels are."""
    if spec.quantization == "none":
        return None
    if spec.device == "cuda" and (spec.quantization == "bitsandbytes" or spec.scope == "adapter"):
        return spec.quantization
    return FP8 if spec.quantization == "fp8" else NF4


class KeptFp8Method(Fp8PerTensorOnlineLinearMethod):
    def __init__(self) -> None:
        super().__init__()
        self.activation_quant_key = kFp8DynamicTokenSym

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """The matrix as it was loaded [out, in] stays beside the one that is made of it, until it is taken."""
        if not getattr(layer, "_already_called_process_weights_after_loading", False):
            setattr(layer, MASTER, layer.weight.data)
        super().process_weights_after_loading(layer)


@register_quantization_config(FP8)
class KeptFp8(Fp8Config):  # type: ignore[misc]  # vLLM's class is untyped to mypy
    @classmethod
    def get_name(cls) -> Any:
        return FP8

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return TYPES

    def get_quant_method(self, layer: nn.Module, prefix: str) -> Any:
        return KeptFp8Method() if isinstance(layer, LinearBase) else None


class NF4Method(UnquantizedLinearMethod):
    """Each part of a merged matrix by itself, as a checkpoint has it."""

    def create_weights(
        self, layer: nn.Module, input_size_per_partition: int, output_partition_sizes: list[int], *args: Any, **more: Any
    ) -> None:
        self.parts = output_partition_sizes
        super().create_weights(layer, input_size_per_partition, output_partition_sizes, *args, **more)

    def process_weights_after_loading(self, layer: Any) -> None:
        for part in layer.weight.data.split(self.parts):
            part.copy_(nf4_rounded(part))
        super().process_weights_after_loading(layer)


@register_quantization_config(NF4)
class NF4Numbers(QuantizationConfig):  # type: ignore[misc]
    @classmethod
    def get_name(cls) -> Any:
        return NF4

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return TYPES

    @classmethod
    def get_min_capability(cls) -> int:
        return 0

    @classmethod
    def get_config_filenames(cls) -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NF4Numbers:
        return cls()

    def get_quant_method(self, layer: nn.Module, prefix: str) -> Any:
        return NF4Method() if isinstance(layer, LinearBase) else None


def take_masters(model: nn.Module, layout: Layout, *, folds: bool) -> Requantized | None:
    """Of the matrices of a layout, as views into vLLM's merged ones; a fold into them is rounded into the live FP8 weights in
    place, where recorded passes read them. None where nothing is folded: then what the layers had kept is let go."""
    if not folds:
        for module in model.modules():
            module.__dict__.pop(MASTER, None)
        return None
    modules, masters, places = dict(model.named_modules()), dict[str, torch.Tensor](), dict[str, tuple[Any, int]]()
    layers: dict[str, tuple[Any, torch.Tensor]] = {}
    for path, leaf, _, name, _ in named_parts(model):
        if leaf == "weight" and name in layout:
            layer = modules[path]
            master = layers.setdefault(path, (layer, getattr(layer, MASTER)))[1]
            start = sum(masters[other].size(0) for other, (held, _) in places.items() if held is layer)
            masters[name], places[name] = master[start : start + layout[name][0]], (layer, start)

    def write() -> None:
        for layer, master in layers.values():
            encode(layer, master)

    def live(name: str, rows: int) -> torch.Tensor:
        layer, start = places[name]
        out, width = masters[name].shape
        return layer.weight.data.t()[start : start + min(rows, out), :width].float() * layer.weight_scale

    return Requantized({name: masters[name] for name in layout}, write, live)


def encode(layer: Any, master: torch.Tensor) -> None:
    """Round a master [out, in] into a layer's weight [in, out], which vLLM may have padded, by the scale that it has."""
    live = layer.weight.data.t()
    if live.shape == master.shape and live.is_contiguous():
        ops.scaled_fp8_quant(master, layer.weight_scale, output=live)
    else:
        live[: master.size(0), : master.size(1)].copy_(ops.scaled_fp8_quant(master, layer.weight_scale)[0])
