"""Passes that stand still before each layer but the first, so that the runner can make others in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from vllm.forward_context import override_forward_context

from bench.executors.vllm.last_layer import stack_of
from bench.executors.vllm.switch import Switch


class Pauses(Switch):
    """pause: called between two layers of a pass; returns when the pass is to go on. pieces: of a pass, one more than pauses.

    Passes made meanwhile find neither the context of this one nor its switches, and may move the LoRA layers to other tokens.
    What the runner's buffers hold they may overwrite: a pass that pauses has read them by then, or holds copies.
    """

    def __init__(self, model: nn.Module, pause: Callable[[], None]) -> None:
        layers = stack_of(model)
        self._pause, self.pieces = pause, max(1, len(layers))
        self._switches, self._mapped = list[Switch](), pause
        for layer in layers[1:]:
            layer.register_forward_pre_hook(self._before)

    def take(self, switches: list[Switch], mapped: Callable[[], None]) -> None:
        """What the pass that comes has switched on, and how its LoRA layers are told its tokens' slots again."""
        self._switches, self._mapped = switches, mapped

    def _before(self, *_: Any) -> None:
        if not self.on:
            return
        mine = (self, *self._switches)
        for switch in mine:
            switch.on = False
        try:
            with override_forward_context(None):
                self._pause()
        finally:
            for switch in mine:
                switch.on = True
            self._mapped()
