"""MeZO: Z is dense Gaussian, regenerated from its seed whenever it is needed and never stored.

Source: arXiv 2305.17333, Algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.api import Direction, Kind
from workloads.method import SHORT_RUN
from workloads.two_sided import TwoSided


@dataclass(frozen=True)
class MeZO(TwoSided):
    name: ClassVar[str] = "mezo"
    kind: ClassVar[Kind] = "dense"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "theta -= lr * mean of g Z, g = (L+ - L-) / (2 eps)"
    source: ClassVar[str] = "arXiv 2305.17333"
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 1e-3}
    tiny_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adapter": {"learning_rate": 1e-2, "eps": 1e-2}}
    upstream: ClassVar[str | None] = "princeton-nlp/MeZO"

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query)
