"""LoZO: Z = U V^T of low rank, U fresh every step, V kept for `interval` steps.

Source: arXiv 2410.07698, Algorithm 1. The paper divides by the rank; upstream's code has no 1/r, and neither do we.
Unlike upstream, the direction that moves the weights is always the one that was measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.api import Direction, Kind
from workloads.method import SHORT_RUN
from workloads.two_sided import TwoSided


@dataclass(frozen=True)
class LoZO(TwoSided):
    name: ClassVar[str] = "lozo"
    kind: ClassVar[Kind] = "lowrank"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "theta -= lr * mean of g Z, g = (L+ - L-) / (2 eps)"
    source: ClassVar[str] = "arXiv 2410.07698"
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 3e-4, "interval": 50}
    upstream: ClassVar[str | None] = "optsuite/LOZO"

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query, self.rank, self.interval)
