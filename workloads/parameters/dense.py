"""Parameter states as rewritten weights: MeZO's dense noise, and the `dense` form of low-rank directions.

A copy of the scoped weights is kept, so that every restore is bit-identical in every dtype; that copy is the memory it
costs, beside the float32 temporaries of one tensor. Without it float16 drifts: +eps, -2 eps, +eps does not come back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from workloads.parameters.rounding import add_


class DenseStates:
    """weights: name -> view into the live model. Delta functions return float32 tensors of the same shape, or None for zero."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.weights = weights
        self.base = {name: weight.clone() for name, weight in weights.items()}

    def write(self, delta: Callable[[str], torch.Tensor | None]) -> None:
        """weights = base + delta, rounded to nearest."""
        for name, weight in self.weights.items():
            change = delta(name)
            if change is None:
                weight.copy_(self.base[name])
            else:
                weight.copy_(change.add_(self.base[name]))

    def restore(self) -> None:
        """weights = base, bit for bit."""
        for name, weight in self.weights.items():
            weight.copy_(self.base[name])

    def move(self, delta: Callable[[str], torch.Tensor], *seed: object) -> None:
        """base += delta (stochastic rounding seeded by seed and name for 16-bit weights), and the weights with it."""
        for name, weight in self.weights.items():
            add_(self.base[name], delta(name), *seed, name)
            weight.copy_(self.base[name])

    def sync(self) -> None:
        """The weights were folded into: they are the new base."""
        for name, weight in self.weights.items():
            self.base[name].copy_(weight)

    def nbytes(self) -> int:
        """Bytes of the weights in scope; one write, and the copy kept, are this large."""
        return sum(w.numel() * w.element_size() for w in self.weights.values())
