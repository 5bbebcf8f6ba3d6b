"""LoZO-M: LoZO along a running mean of its steps, N = beta N + (1 - beta) g U, theta -= lr N V^T.

When V is resampled, N becomes N V_old^T V_new / n, n the columns of V^T: what the new subspace holds of the old momentum.
Source: arXiv 2410.07698, LOZO-M, without its 1/r as in LoZO. N is as small as U.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.api import Direction, Kind
from workloads.method import SHORT_RUN
from workloads.momentum import Momentum


@dataclass(frozen=True)
class LoZOM(Momentum):
    name: ClassVar[str] = "lozo-m"
    kind: ClassVar[Kind] = "lowrank"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "N = beta N + (1 - beta) g U; theta -= lr N V^T; N V_old^T V_new / n when V is resampled"
    source: ClassVar[str] = "arXiv 2410.07698"
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 5e-4, "interval": 50}
    keeps: ClassVar[str] = "N: float32 [out, rank] a matrix"
    redraws: ClassVar[str | None] = "keeps factors only"

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query, self.rank, self.interval)
