"""ZO-SGD with momentum: MeZO along a running mean of its steps, m = beta m + (1 - beta) g Z, theta -= lr m.

Source: arXiv 2402.11592 (ZO-SGD-MMT), whose published code has no factor (1 - beta); with it a learning rate means the same at
every beta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.api import Direction, Kind
from workloads.method import SHORT_RUN
from workloads.momentum import Momentum


@dataclass(frozen=True)
class MeZOM(Momentum):
    name: ClassVar[str] = "mezo-m"
    kind: ClassVar[Kind] = "dense"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "m = beta m + (1 - beta) g Z; theta -= lr m"
    source: ClassVar[str] = "arXiv 2402.11592"
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 1e-3}
    tiny_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adapter": {"learning_rate": 1e-2, "eps": 1e-2}}
    keeps: ClassVar[str] = "m: float32, as large as the scope; redrawn: numbers only"

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query)
