"""Passes that can stand still before the products of a layer, so that the runner can make others in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import nn
from vllm.forward_context import override_forward_context
from vllm.lora.layers import BaseLayerWithLoRA
from vllm.model_executor.layers.linear import LinearBase

from bench.executors.vllm.last_layer import stack_of
from bench.executors.vllm.switch import Switch


class Turn(Protocol):
    """Whose the runner is."""

    def over(self) -> bool:
        """Told of every place where the pass can stand still: whether it has to."""

    def pause(self) -> None:
        """Returns when the pass is to go on."""


class Pauses(Switch):
    """pieces: of a pass, one more than the places where it can stand still. The last layer is one piece: it may run in parts.

    Passes made meanwhile find neither the context of this one nor its switches, and may move the LoRA layers to other tokens.
    What the runner's buffers hold they may overwrite: a pass that pauses has read them by then, or holds copies.
    """

    def __init__(self, model: nn.Module, turn: Turn) -> None:
        self._turn, self.pieces = turn, 1
        self._switches, self._mapped = list[Switch](), turn.pause
        layers = stack_of(model)
        for module in [*(product for layer in layers[:-1] for product in _products(layer)), *layers[1:]]:
            module.register_forward_pre_hook(self._before)
            self.pieces += 1

    def take(self, switches: list[Switch], mapped: Callable[[], None]) -> None:
        """What the pass that comes has switched on, and how its LoRA layers are told its tokens' slots again."""
        self._switches, self._mapped = switches, mapped

    def _before(self, *_: Any) -> None:
        if not self.on or not self._turn.over():
            return
        mine = (self, *self._switches)
        for switch in mine:
            switch.on = False
        try:
            with override_forward_context(None):
                self._turn.pause()
        finally:
            for switch in mine:
                switch.on = True
            self._mapped()


def _products(module: nn.Module) -> Iterator[nn.Module]:
    """The linear layers in a module, each with its adapters."""
    for child in module.children():
        if isinstance(child, (BaseLayerWithLoRA, LinearBase)):
            yield child
        else:
            yield from _products(child)
