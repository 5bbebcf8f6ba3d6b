"""Factorized high-rank: Z = U V^T / sqrt(r), both factors fresh for every step and query.

Entries of Z have zero mean and unit variance, as MeZO's, and approach its Gaussian as r grows, yet Z fits in an adapter.
Source: arXiv 2605.28760, section on factorized perturbations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.api import Direction, Kind
from workloads.method import SHORT_RUN
from workloads.two_sided import TwoSided


@dataclass(frozen=True)
class Factorized(TwoSided):
    name: ClassVar[str] = "factorized"
    kind: ClassVar[Kind] = "factorized"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "theta -= lr * mean of g Z, g = (L+ - L-) / (2 eps)"
    source: ClassVar[str] = "arXiv 2605.28760"
    defaults: ClassVar[Mapping[str, Any]] = {"rank": 128}
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 1e-3, "rank": 32}

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query, self.rank)
