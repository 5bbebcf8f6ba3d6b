"""ZO-SGD-Sign: of the projected gradient only the sign is used, theta -= lr * mean over queries of sign(g) Z.

Source: arXiv 2402.11592 (ZO-SGD-Sign), the sign where its published code takes it: of g, not of every entry of g Z. Z is dense,
as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Direction, Kind
from workloads.method import SHORT_RUN
from workloads.two_sided import TwoSided

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ZOSign(TwoSided):
    name: ClassVar[str] = "zo-sign"
    kind: ClassVar[Kind] = "dense"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "theta -= lr * mean of sign(g) Z"
    source: ClassVar[str] = "arXiv 2402.11592"
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 3e-3}
    tiny_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adapter": {"learning_rate": 1e-2, "eps": 1e-2}}

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query)

    def coefficients(self, step: int, losses: torch.Tensor) -> torch.Tensor:
        return self.projected_gradients(losses).sign() * (-self.rate(step) / self.queries)
