"""Passes that can stand still before every product and every attention, so that the runner can make others in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch import nn
from vllm.forward_context import override_forward_context
from vllm.lora.layers import BaseLayerWithLoRA
from vllm.model_executor.layers.linear import LinearBase

from bench.executors.vllm.last_layer import attends
from bench.executors.vllm.lora import SegmentedLora
from bench.executors.vllm.switch import Switch


class Turn(Protocol):
    """Whose the runner is."""

    def over(self) -> bool:
        """Told of every place where the pass can stand still: whether it has to."""

    def pause(self) -> None:
        """Returns when the pass is to go on."""


class Pauses(Switch):
    """switches: what a pass may have on; manager: vLLM's of adapters, if there are any.

    Passes made meanwhile find neither the context of this one nor its switches, and may move the LoRA layers to other tokens.
    What the runner's buffers hold they may overwrite: a pass that pauses has read them by then, or holds copies.
    """

    def __init__(self, model: nn.Module, turn: Turn, switches: Sequence[Switch], manager: Any) -> None:
        self._turn, self._switches, self._manager = turn, (self, *switches), manager
        for module in _places(model):
            module.register_forward_pre_hook(self._before)

    def _before(self, *_: Any) -> None:
        if not self.on or not self._turn.over():
            return
        on, back = [switch for switch in self._switches if switch.on], self._mapping()
        for switch in on:
            switch.on = False
        try:
            with override_forward_context(None):
                self._turn.pause()
        finally:
            for switch in on:
                switch.on = True
            back()

    def _mapping(self) -> Callable[[], None]:
        """Brings back what the LoRA layers have been told of their tokens."""
        manager = self._manager
        wrapper = None if manager is None else next(iter(manager.punica_wrapper_mapping.values()))
        if not isinstance(wrapper, SegmentedLora):
            return lambda: None
        segments = wrapper.segments

        def back() -> None:
            wrapper.segments = segments
            manager._last_mapping = None  # vLLM remembers having set another one

        return back


def _places(module: nn.Module) -> Iterator[nn.Module]:
    """The linear layers of a model, each with its adapters, and its attentions."""
    for child in module.children():
        if isinstance(child, (BaseLayerWithLoRA, LinearBase)) or attends(child):
            yield child
        else:
            yield from _places(child)
