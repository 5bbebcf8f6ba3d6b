"""Weights: seeded random ones, and the Hugging Face models that hold them or a checkpoint's.

Random weights are drawn per parameter name, on the device, one tensor at a time: every executor on a device gets the same
values, and none holds a second copy of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bench.data import ModelSource
from workloads.models.checkpoint import check_architecture, check_keys, loading
from workloads.seeds import gaussian

SEED = 0


def load_model(source: ModelSource, dtype: torch.dtype, device: torch.device | str, *, attention: str = "eager") -> nn.Module:
    """The Hugging Face causal LM of a source, in eval mode, without gradients."""
    from transformers import AutoModelForCausalLM

    model: Any
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention, "trust_remote_code": source.trust_remote_code}
    if source.weights == "pretrained":
        with loading(source):
            options |= {"local_files_only": True, "output_loading_info": True}
            found: Any = AutoModelForCausalLM.from_pretrained(source.path, **options)
        model, info = found
        check_keys(source, info)
        model.to(device)
    else:
        # Built on the device with initialisation skipped, then filled tensor by tensor: one copy of the model.
        from transformers.initialization import no_init_weights

        with torch.device(device), no_init_weights():
            model = AutoModelForCausalLM.from_config(_config(source), **options)
        model.tie_weights()
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in seeded_weights(source, dtype, device):
                parameters[name].copy_(value)
    return model.eval().requires_grad_(False)


def seeded_weights(source: ModelSource, dtype: torch.dtype, device: torch.device | str) -> Iterator[tuple[str, torch.Tensor]]:
    """(checkpoint name, tensor) of every parameter: matrices normal at the configuration's scale, norms neutral, biases 0."""
    config, model = _config(source), skeleton(source)
    std: Any = getattr(config, "init_std", None) or getattr(config, "initializer_range", 0.02)
    norms = dict(_norms(model))
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if name in norms:
            yield name, norms[name].to(device, dtype)
        elif len(shape) > 1:
            yield name, (gaussian(shape, device, "weight", SEED, name) * std).to(dtype)
        else:
            yield name, torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=dtype, device=device)


def skeleton(source: ModelSource) -> nn.Module:
    """The Hugging Face causal LM of a source without storage: structure, shapes and configuration."""
    from transformers import AutoModelForCausalLM

    check_architecture(source)
    with loading(source), torch.device("meta"):
        return AutoModelForCausalLM.from_config(_config(source), trust_remote_code=source.trust_remote_code)


def _norms(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters of the norms as their family begins with them: it may store a factor, or what a factor is above 1 (Gemma)."""
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if own and "norm" in type(module).__name__.lower():
            module.to_empty(device="cpu", recurse=False)
            model._init_weights(module)
            yield from ((f"{path}.{name}", value.detach()) for name, value in module.named_parameters(recurse=False))


def _config(source: ModelSource) -> Any:
    from transformers import AutoConfig

    with loading(source):
        return AutoConfig.from_pretrained(source.path, trust_remote_code=source.trust_remote_code, local_files_only=True)
