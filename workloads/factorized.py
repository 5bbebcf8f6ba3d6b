"""Factorized high-rank: Z = U V^T / sqrt(r), both factors fresh for every step and query.

Entries of Z have zero mean and unit variance, as MeZO's, and approach its Gaussian as r grows, yet Z fits in an adapter.
Source: arXiv 2605.28760, section on factorized perturbations.
"""

from dataclasses import dataclass
from typing import ClassVar

from bench.api import Direction
from workloads.two_sided import TwoSided


@dataclass(frozen=True)
class Factorized(TwoSided):
    name: ClassVar[str] = "factorized"
    version: ClassVar[int] = 1

    def direction(self, step: int, query: int) -> Direction:
        return Direction("factorized", self.seed, step, query, self.rank)
