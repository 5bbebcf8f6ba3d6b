"""FZOO: one-sided probes, the step divided by the deviation of their losses, theta -= lr / q * sum of (l_i - l_0) / s * Z_i.

s is the standard deviation of l_1 ... l_q, with q - 1 below. It grows with eps as the differences do: the estimate's constant
1/eps is left to the learning rate. Source: arXiv 2506.09034. There Z has dense entries of +-1; here it is factorized, its entries
of the same mean and variance, so that all q + 1 states fit in adapters and are scored in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api import Direction, Kind
from bench.config import RunSpec
from bench.errors import UsageError
from workloads.method import SHORT_RUN
from workloads.one_sided import OneSided

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FZOO(OneSided):
    name: ClassVar[str] = "fzoo"
    kind: ClassVar[Kind] = "factorized"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "theta -= lr * mean of (L_i - L_0) / s * Z_i, s the deviation of the L_i"
    source: ClassVar[str] = "arXiv 2506.09034"
    defaults: ClassVar[Mapping[str, Any]] = {"rank": 16, "queries": 8}
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 3e-3}

    @classmethod
    def from_spec(cls, spec: RunSpec) -> Self:
        if spec.queries < 2:
            raise UsageError(f"--queries {spec.queries}: {cls.name} divides by the spread of its losses; give at least 2")
        return super().from_spec(spec)

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query, self.rank)

    def coefficients(self, step: int, losses: torch.Tensor) -> torch.Tensor:
        """-rate / q * (l_i - l_0) / s; 0 where all probes have the same loss."""
        spread = losses[1:].std()
        moves = (losses[1:] - losses[0]) / spread * (-self.rate(step) / self.queries)
        return moves.where(spread > 0, moves.new_zeros(()))
