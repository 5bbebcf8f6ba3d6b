"""Canonical Hugging Face names to what vLLM made of them: views into its parameters, and slices of its LoRA modules.

vLLM merges q, k and v (and gate and up) into one matrix and may pad the vocabulary; everything here undoes that by view.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bench.errors import UsageError
from workloads.directions import Layout


def named_parts(model: nn.Module) -> Iterator[tuple[str, str, int, str, torch.Tensor]]:
    """Every parameter under its canonical names: path of the module that has it, leaf, number of the part of a merged matrix (0
    of others), canonical name, and vLLM's whole tensor."""
    packed: dict[str, list[str]] = getattr(model, "packed_modules_mapping", {})
    for full_name, tensor in model.named_parameters():
        path, _, leaf = full_name.replace(".base_layer", "").rpartition(".")
        parent, _, module = path.rpartition(".")
        parts = packed.get(module, [])
        names = [f"{parent}.{part}.{leaf}" for part in parts] if len(parts) > 1 else [f"{path}.{leaf}"]
        for index, name in enumerate(names):
            yield full_name.rpartition(".")[0], leaf, index, name, tensor


def parameter_views(model: nn.Module, shapes: Layout) -> dict[str, torch.Tensor]:
    """Every parameter under its Hugging Face name and shape, as a view into vLLM's own tensor.

    shapes    the full layout of the model (names as in a checkpoint, tied weights once), or of the parts that are here

    What is written through a view raises the version of vLLM's tensor, by which copies of it are known to be stale.
    """
    views: dict[str, torch.Tensor] = {}
    starts: dict[int, int] = {}
    for _, _, _, name, tensor in named_parts(model):
        if name in shapes:
            start, size = starts.get(id(tensor), 0), shapes[name][0]
            views[name] = tensor.detach()[start : start + size].view(shapes[name])
            starts[id(tensor)] = start + size
    missing = [name for name in shapes if name not in views]
    if missing:
        kind, named = type(model).__name__, ", ".join(missing[:3])
        raise UsageError(
            f"--executor vllm: vLLM's {kind} keeps {named} ({len(missing)} in all) in another form; "
            "use --executor eager or official"
        )
    return {name: views[name] for name in shapes}


def clear_slots(manager: Any) -> None:
    """Every slot adds nothing to any layer, those that are not written included."""
    for module in manager.modules.values():
        for tensor in (*getattr(module, "lora_a_stacked", ()), *getattr(module, "lora_b_stacked", ())):
            tensor.zero_()


def share_slots(manager: Any) -> None:
    """Move the slots of a manager's adapters to memory that a process made by `fork` goes on to share. On a CPU, before anything
    holds a view of them."""
    for module in manager.modules.values():
        for name in ("lora_a_stacked", "lora_b_stacked"):
            if hasattr(module, name):
                setattr(module, name, tuple(map(_shared, getattr(module, name))))


def _shared(tensor: torch.Tensor) -> torch.Tensor:
    memory = mmap.mmap(-1, tensor.numel() * tensor.element_size())
    return torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)


def lora_slices(manager: Any, layout: Layout) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For each matrix of the layout its adapter storage: A [slots, 1, max_rank, in] and B [slots, 1, out, max_rank].

    manager    vLLM's LoRAModelManager
    """
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for path, module in manager.modules.items():
        parent, _, last = path.rpartition(".")
        parts = manager.packed_modules_mapping.get(last, [])
        names = [f"{parent}.{part}.weight" for part in parts] if len(parts) > 1 else [f"{path}.weight"]
        if hasattr(module, "lora_a_stacked") and len(module.lora_a_stacked) == len(names):
            found |= dict(zip(names, zip(module.lora_a_stacked, module.lora_b_stacked, strict=True), strict=True))
    missing = [name for name in layout if name not in found]
    if missing:
        raise UsageError(
            f"--executor vllm: vLLM has no LoRA for {', '.join(missing[:3])} ({len(missing)} in all) of this model; "
            "use --executor eager"
        )
    return {name: found[name] for name in layout}
