"""MeZO: Z is dense Gaussian, regenerated from its seed whenever it is needed and never stored.

Source: arXiv 2305.17333, Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

from bench.api import Direction
from workloads.two_sided import TwoSided


@dataclass(frozen=True)
class MeZO(TwoSided):
    name: ClassVar[str] = "mezo"
    version: ClassVar[int] = 1

    def direction(self, step: int, query: int) -> Direction:
        return Direction("dense", self.seed, step, query)
