"""How many weights an update really changes: in 16 bits, rounding to nearest swallows most small updates."""

from __future__ import annotations

from collections.abc import Sequence

import torch

SAMPLED_UPDATES, SAMPLED_TENSORS, SAMPLED_ROWS = 10, 4, 64


class Absorption:
    """Entered around an update, watches the first ten: 64 rows of four tensors, so it costs next to nothing."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        stride = max(1, -(-len(parameters) // SAMPLED_TENSORS))
        self._sampled = parameters[stride // 2 :: stride]
        self._shares: list[torch.Tensor] = []
        self._before: list[torch.Tensor] = []

    def __enter__(self) -> None:
        if len(self._shares) < SAMPLED_UPDATES:
            self._before = [parameter.data[:SAMPLED_ROWS].clone() for parameter in self._sampled]

    def __exit__(self, *exc: object) -> None:
        if self._before:
            pairs = zip(self._before, self._sampled, strict=True)
            changed = [(old != parameter.data[:SAMPLED_ROWS]).flatten() for old, parameter in pairs]
            self._shares.append(torch.cat(changed).float().mean())
            self._before = []

    def fraction(self) -> float | None:
        """Share of the sampled weights that an update changed, mean over the updates watched; None before the first."""
        return float(torch.stack(self._shares).mean()) if self._shares else None
