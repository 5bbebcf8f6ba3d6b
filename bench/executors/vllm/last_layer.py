"""The last layer for the positions that are read, and for no others.

What a model makes of a position that nobody reads matters to other positions by its keys and values alone. So the last layer runs
twice: once for all tokens as far as its attention, which keeps their keys and values and ends the call there, and once for
the wanted positions, whose queries attend to what was kept. Most of that layer's products are saved.

On a CPU alone: it takes passes that are neither compiled nor recorded, and attention without a KV pool.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.api import mark
from bench.executors.vllm.cpu_rows import Group, groups_of
from bench.executors.vllm.lora import SegmentedLora
from bench.executors.vllm.packing import Packed
from bench.executors.vllm.switch import Switch
from workloads.tasks.ragged import Ints


class LastLayer(Switch):
    """Of a model whose layers are a stack of modules with one attention each: `taken` says whether this one is."""

    def __init__(self, model: nn.Module) -> None:
        layer, attention = last_of(model)
        self.taken = layer is not None
        if layer is not None:
            self._own, layer.forward = layer.forward, self._forward
            self._attention = attention.impl = _Attention(attention.impl)
        self._wanted, self._tokens = torch.zeros(0, dtype=torch.long), 0
        self._lora: SegmentedLora | None = None
        self._segments: list[tuple[int, int, int]] = []

    def take(self, packed: Packed, wanted: Ints, slots: list[int], lora: SegmentedLora | None) -> None:
        """The batch of the pass that comes. wanted: index into its tokens, as many for every probe; slots: of the probes."""
        each, self._tokens = len(wanted) // len(slots), len(packed.slots)
        self._wanted, self._lora = torch.from_numpy(wanted.astype(np.int64)), lora
        self._segments = [(slot, at * each, (at + 1) * each) for at, slot in enumerate(slots) if slot >= 0]
        self._attention.groups = groups_of(packed, wanted)

    def _forward(self, *given: Any, **named: Any) -> Any:
        if not self.on:
            return self._own(*given, **named)
        # copied before the layer runs, which may write into what it is given
        rows, names = [self._cut(x) for x in given], {name: self._cut(x) for name, x in named.items()}
        self._attention.kept = None
        with self._attention.during(True):
            with suppress(_Kept):
                self._own(*given, **named)
            if self._lora is not None:
                self._lora.segments = self._segments
            return self._own(*rows, **names)

    def _cut(self, x: Any) -> Any:
        """Of what has a row, or else a column, for every token of the pass."""
        if not isinstance(x, torch.Tensor) or x.ndim == 0:
            return x
        if x.size(0) == self._tokens:
            return x[self._wanted]
        return x[..., self._wanted] if x.size(-1) == self._tokens else x


class _Kept(Exception):
    """Keys and values of all tokens are there; nothing else of the call is needed."""


class _Attention(Switch):
    """Stands where the implementation of the layer's attention stands. While it is on, the first call keeps its keys and values,
    and the second attends to them."""

    def __init__(self, own: Any) -> None:
        self._own, self.groups = own, list[Group]()
        self.kept: tuple[torch.Tensor, torch.Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def forward(
        self, layer: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cache: Any, metadata: Any,
        output: torch.Tensor, *more: Any, **named: Any,
    ) -> torch.Tensor:  # fmt: skip
        """query, output [tokens, heads, head]; key, value [tokens, KV heads, head]."""
        if not self.on:
            found: torch.Tensor = self._own.forward(layer, query, key, value, cache, metadata, output, *more, **named)
            return found
        if self.kept is None:
            self.kept = key, value
            raise _Kept
        (key, value), self.kept = self.kept, None
        with mark("attention"):
            for group in self.groups:
                group.attend(query, key, value, self._own.scale, output)
        return output


def last_of(model: nn.Module) -> tuple[Any, Any]:
    """A model's last layer and its attention; None and None where its layers are no stack of modules with one attention each."""
    layers = _layers(model)
    own = [[module for module in layer.modules() if attends(module)] for layer in layers]
    return (layers[-1], own[-1][0]) if layers and all(len(found) == 1 for found in own) else (None, None)


def _layers(model: nn.Module) -> list[nn.Module]:
    """A model's layers, in their order: those of the one outermost list that has all of its attention; none where there is no
    such list."""
    modules = dict(model.named_modules())
    stacks = {_stack(name, modules) for name, module in modules.items() if attends(module)}
    found = stacks.pop() if len(stacks) == 1 else None
    return [] if found is None else list(modules[found].children())


def attends(module: Any) -> bool:
    """Whether it is an attention of vLLM's."""
    return hasattr(module, "impl") and hasattr(module, "kv_cache")


def _stack(name: str, modules: dict[str, nn.Module]) -> str | None:
    """The outermost list of modules that a module is in."""
    parts = name.split(".")
    return next(
        (path for path in (".".join(parts[:n]) for n in range(1, len(parts))) if type(modules[path]) is nn.ModuleList), None
    )
