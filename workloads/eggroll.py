"""EGGROLL: evolution strategies over 2 q antithetic members theta +- eps Z, theta -= lr / (2 q) * sum of (s(L+) - s(L-)) Z.

s standardises the losses of the whole population: minus their mean, divided by their deviation. Z = U V^T / sqrt(r), both fresh
for every pair of members. The fitness is minus the batch's loss, or with --reward the mean reward of what a member answers.
Source: arXiv 2511.16652, without its constant 1/eps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Direction, Kind
from workloads.method import SHORT_RUN
from workloads.two_sided import TwoSided

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Eggroll(TwoSided):
    name: ClassVar[str] = "eggroll"
    kind: ClassVar[Kind] = "factorized"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "theta -= lr / (2 q) * sum of (s(L+) - s(L-)) Z, s standardising over the population of 2 q"
    source: ClassVar[str] = "arXiv 2511.16652"
    defaults: ClassVar[Mapping[str, Any]] = {"rank": 1, "queries": 4}
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 3e-3}
    tiny_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {"reward": {"learning_rate": 3e-2, "eps": 1e-2, "steps": 90}}

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query, self.rank)

    def coefficients(self, step: int, losses: torch.Tensor) -> torch.Tensor:
        """-rate / (2 q) * (L+ - L-) / deviation: the mean cancels within a pair; 0 where all members have the same loss."""
        spread = losses.std(correction=0)
        moves = (losses[0::2] - losses[1::2]) / spread * (-self.rate(step) / len(losses))
        return moves.where(spread > 0, moves.new_zeros(()))
