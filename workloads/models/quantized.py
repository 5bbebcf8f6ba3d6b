"""A Hugging Face model whose linear layers are quantised as vLLM quantises them: all but the output head.

The rounded numbers stand in the model's own type, so this shows what fewer bits do to losses and saves no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bench.data import ModelSource
from bench.errors import UsageError
from workloads.models.scope import is_conv1d, is_linear, views
from workloads.parameters.formats import fp8_rounded, fp8_rows, fp8_scale, nf4_rounded
from workloads.parameters.requantized import Requantized

MERGED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Neighbours that vLLM holds as one matrix, which has one FP8 scale."""


def quantize(model: nn.Module, source: ModelSource, how: str, *, products: bool) -> dict[str, torch.Tensor]:
    """In place; how: fp8 | bitsandbytes; products: whether inputs of FP8 layers are rounded too. Name -> scale of FP8 weights.

    UsageError for a mixture of experts, whose stacked matrices are no linear layers.
    """
    if any(parameter.ndim > 2 for parameter in model.parameters()):
        raise UsageError(f"--quantization {how} --model {source.name}: experts are not quantised here; use --quantization none")
    scales: dict[str, torch.Tensor] = {}
    for layers in _groups(model):
        weights = {f"{path}.weight": _matrix(layer) for path, layer in layers.items()}
        if how == "fp8":
            scales |= dict.fromkeys(weights, fp8_scale(*weights.values()))
        for name, weight in weights.items():
            weight.copy_(fp8_rounded(weight, scales[name]) if how == "fp8" else nf4_rounded(weight))
        for layer in layers.values():
            if how == "fp8" and products:
                layer.round_input = fp8_rows  # read by wrappers that multiply by its weight themselves
                layer.register_forward_pre_hook(lambda _, given: (fp8_rows(given[0]), *given[1:]))
    return scales


def kept(model: nn.Module, source: ModelSource, scope: str) -> Requantized:
    """FP8 weights and products, and a master of every matrix in scope."""
    live = views(model, scope)
    masters = {name: weight.clone() for name, weight in live.items()}
    scales = quantize(model, source, "fp8", products=True)

    def write() -> None:
        for name, weight in live.items():
            weight.copy_(fp8_rounded(masters[name], scales[name]))

    return Requantized(masters, write, lambda name, rows: live[name][:rows].to(torch.float32, copy=True))


def _groups(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Linear layers by path, those together that share a scale."""
    head, groups = getattr(model, "get_output_embeddings", lambda: None)(), dict[tuple[str, str], dict[str, Any]]()
    for path, module in model.named_modules():
        if is_linear(module) and module is not head:
            parent, _, last = path.rpartition(".")
            together = next((names[0] for names in MERGED if last in names), last)
            groups.setdefault((parent, together), {})[path] = module
    yield from groups.values()


def _matrix(layer: Any) -> torch.Tensor:
    """The live weight as [out, in], whichever way it is stored."""
    weight: torch.Tensor = layer.weight.data
    return weight.t() if is_conv1d(layer) else weight
