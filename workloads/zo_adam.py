"""ZO-Adam: Adam on the estimate g Z of MeZO, theta -= lr m' / (sqrt(v') + 1e-8), m and v means of g Z and of its square.

m' and v' are m / (1 - beta^t) and v / (1 - 0.999^t) after t steps. Source: arXiv 2402.11592 (ZO-Adam) and 1412.6980, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.api import Direction, Kind
from workloads.method import SHORT_RUN
from workloads.momentum import Momentum


@dataclass(frozen=True)
class ZOAdam(Momentum):
    name: ClassVar[str] = "zo-adam"
    kind: ClassVar[Kind] = "dense"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "Adam on g Z, second beta 0.999"
    source: ClassVar[str] = "arXiv 2402.11592, 1412.6980"
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 2e-3}
    tiny_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adapter": {"learning_rate": 1e-2, "eps": 1e-2}}
    keeps: ClassVar[str] = "m and v: float32, each as large as the scope"
    redraws: ClassVar[str | None] = "would have to draw the last 7000 directions again in every step"
    beta_square: ClassVar[float | None] = 0.999

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query)
