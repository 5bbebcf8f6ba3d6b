"""Products of vLLM's linear layers on a CPU with weights in oneDNN's own layout, which MKL's plain product has not.

A layer's packed weight is made when it is first needed and again when the weight has changed, which PyTorch's version counter
tells. It is a copy: the weight that is folded into stays. Which product runs never depends on what ran before, so a run that is
gone on with has the bits of one that was not interrupted.

The two states of a query begin alike: until an adapter has acted, both halves of a batch are the same. So the first product of a
pass is made for one half where that is so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bench import onednn
from bench.executors.vllm.rows import Linear
from bench.executors.vllm.switch import Switch


class PackedProducts(Switch):
    """The linear layers of a model on a CPU, which have vLLM's own products but for passes made within `during(True)`.

    first    whether no product of the pass has been made yet
    """

    first = False

    def __init__(self, model: torch.nn.Module) -> None:
        linear: list[Any] = [module for module in model.modules() if hasattr(module, "cpu_linear")]
        found = [module for module in linear if onednn.packable(module.weight)]
        self.layers = [_Layer(module.cpu_linear, self) for module in found]
        for module, layer in zip(found, self.layers, strict=True):
            module.cpu_linear = layer

    @contextmanager
    def during(self, on: bool) -> Iterator[None]:
        self.first = True
        with super().during(on):
            yield

    def nbytes(self) -> int:
        """Bytes of the packed copies."""
        return sum(layer.nbytes for layer in self.layers)


class _Layer:
    def __init__(self, own: Linear, products: PackedProducts) -> None:
        self._own, self._products = own, products
        self._version, self._packed, self.nbytes = -1, None, 0

    def __call__(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x [tokens, in], weight [out, in], bias [out] -> [tokens, out]."""
        if not self._products.on:
            return self._own(x, weight, bias)
        if self._version != weight._version:
            self._packed = onednn.pack(weight)
            self._version, self.nbytes = weight._version, weight.numel() * weight.element_size()
        first, self._products.first = self._products.first, False
        half = len(x) // 2
        if first and half and torch.equal(x[:half], x[half:]):
            return onednn.product(x[:half], self._packed, bias).repeat(2, 1)
        return onednn.product(x, self._packed, bias)
