"""Why a model's losses are not finite, or exactly 0, in a narrow type: which value left its range, and what to use instead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bench.data import Batch, ModelSource
from bench.errors import UsageError
from workloads.models.memory import release
from workloads.models.weights import load_model


def refuse_overflow(source: ModelSource, dtype: str, device: str, batch: Batch, losses: Sequence[float]) -> None:
    """UsageError for losses of a plain forward in a type that are not finite."""
    if all(map(math.isfinite, losses)):
        return
    wide = dtype == "float32"
    kind = torch.float32 if wide else getattr(torch, dtype)
    name, reached = _first(source, kind, device, batch)
    if wide:
        raise UsageError(
            f"--model {source.name}: {name} is not finite in float32 either; its weights are damaged: download or save them again"
        )
    most, other = torch.finfo(kind).max, "float32" if dtype == "bfloat16" else "bfloat16 or float32"
    raise UsageError(
        f"--dtype {dtype}: --model {source.name} has no finite loss in it: {name} reaches {reached:.2e} in float32, "
        f"and {dtype} ends at {most:.2e}; use --dtype {other}"
    )


def refuse_zeros(source: ModelSource, dtype: str, losses: Sequence[float], wide: Sequence[float]) -> None:
    """UsageError for losses that are all exactly 0 in a type, and not in float32 (`wide`)."""
    if not any(losses) and any(wide):
        raise UsageError(
            f"--dtype {dtype}: every loss of --model {source.name} is exactly 0 in it, up to {max(wide):.1e} in float32: "
            "the right answers are so far ahead that it cannot tell their share from 1; use --dtype float32"
        )


@torch.inference_mode()
def _first(source: ModelSource, dtype: torch.dtype, device: str, batch: Batch) -> tuple[str, float]:
    """The first value that is not finite, by the name of its parameter or module; the most that module gives in float32."""
    model: Any = load_model(source, dtype, device)
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return name, float("inf")
    found: list[str] = []
    row: tuple[int, ...] = ()
    for example in batch:
        for row, _ in example.rows():
            with _watched(model, lambda name, out: found.append(name) if not out.isfinite().all() else None):
                model(torch.tensor([row], device=device), use_cache=False)
            if found:
                break
        if found:
            break
    name = found[0] if found else "its loss"
    del model
    release()
    most = [0.0]

    def look(module: str, out: torch.Tensor) -> None:
        if module == name:
            most[0] = max(most[0], float(out.abs().max()))

    wide: Any = load_model(source, torch.float32, device)
    with _watched(wide, look):
        wide(torch.tensor([row], device=device), use_cache=False)
    return f"the output of {name}", most[0]


@contextmanager
def _watched(model: nn.Module, look: Any) -> Iterator[None]:
    """look(name, output) for every tensor that a module gives, innermost first."""

    def hook(name: str) -> Any:
        def called(module: nn.Module, args: Any, out: Any) -> None:
            for part in out if isinstance(out, tuple) else (out,):
                if isinstance(part, torch.Tensor) and part.is_floating_point():
                    look(name, part)

        return called

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
