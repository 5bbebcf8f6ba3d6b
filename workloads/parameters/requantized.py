"""Weights in fewer bits that training moves: it moves a kept master of 16 or 32 bits, which is then quantised again.

Rounding is to nearest and the scales stay those of the loaded weights, so that what a fold has not moved keeps its bits; what
outgrows the scale saturates. A change smaller than half a step of the grid is not lost: the master keeps it until it has grown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch

SAMPLED_ROWS, REMEMBERED = 64, 100


class Requantized:
    """masters: canonical name -> [out, in], what the live weights are made from; write: makes them anew; live: the first so many
    rows of a live matrix as numbers, float32.

    Every writing is watched on the first rows of the middle matrix: which share of the live weights changed, the cosine between
    what the master moved and what they moved, and how far they moved along it.
    """

    def __init__(
        self, masters: Mapping[str, torch.Tensor], write: Callable[[], None], live: Callable[[str, int], torch.Tensor]
    ) -> None:
        self.masters, self._write, self._live = dict(masters), write, live
        self._name = list(masters)[len(masters) // 2]
        self._watched: deque[torch.Tensor] = deque(maxlen=REMEMBERED)  # [changed share, cosine, gain] each
        self._seen = self._rows()

    def refresh(self) -> None:
        """The masters have moved."""
        before = self._seen
        self._write()
        self._seen = self._rows()
        meant, moved = ((new - old).flatten() for new, old in zip(self._seen, before, strict=True))
        gain = (meant @ moved) / (meant @ meant).clamp(min=torch.finfo(torch.float32).tiny)
        self._watched.append(torch.stack([(moved != 0).float().mean(), torch.cosine_similarity(meant, moved, dim=0), gain]))

    def begin_again(self) -> None:
        """The masters were replaced, which is no movement."""
        self._write()
        self._seen = self._rows()
        self._watched.clear()

    def facts(self) -> dict[str, Any]:
        """Means over the last hundred writings; None before the first."""
        means = torch.stack(list(self._watched)).mean(0).tolist() if self._watched else [None] * 3
        return dict(zip(("requantized_fraction", "requantized_cosine", "requantized_gain"), means, strict=True))

    def nbytes(self) -> int:
        return sum(master.numel() * master.element_size() for master in self.masters.values())

    def _rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the master and of what is made from it, float32."""
        return self.masters[self._name][:SAMPLED_ROWS].to(torch.float32, copy=True), self._live(self._name, SAMPLED_ROWS)
