"""LoZO: Z = U V^T of low rank, U fresh every step, V kept for `interval` steps.

Source: arXiv 2410.07698, Algorithm 1. The paper divides by the rank; upstream's code has no 1/r, and neither do we.
Unlike upstream, the direction that moves the weights is always the one that was measured.
"""

from dataclasses import dataclass
from typing import ClassVar

from bench.api import Direction
from workloads.two_sided import TwoSided


@dataclass(frozen=True)
class LoZO(TwoSided):
    name: ClassVar[str] = "lozo"
    version: ClassVar[int] = 1

    def direction(self, step: int, query: int) -> Direction:
        return Direction("lowrank", self.seed, step, query, self.rank, self.interval)
