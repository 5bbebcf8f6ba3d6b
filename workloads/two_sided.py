"""The two-sided estimator every workload here shares: score theta +- eps Z, step against the projected gradient.

Source: MeZO, arXiv 2305.17333, Definition 1 and Algorithm 1; with several queries, the mean over them (n-SPSA).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.api import Direction, Probe, Update

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TwoSided(ABC):
    """Settings of a two-sided ZO method with a constant learning rate. Subclasses name the direction."""

    learning_rate: float
    eps: float
    rank: int
    interval: int
    queries: int
    seed: int

    @abstractmethod
    def direction(self, step: int, query: int) -> Direction:
        """The Z of one query of one step."""

    def plan(self, step: int) -> tuple[Probe, ...]:
        """(+eps, -eps) for each query."""
        directions = [self.direction(step, query) for query in range(self.queries)]
        return tuple(Probe(d, shift) for d in directions for shift in (self.eps, -self.eps))

    def projected_gradients(self, losses: torch.Tensor) -> torch.Tensor:
        """(loss_plus - loss_minus) / (2 eps): losses [..., 2 q] to [..., q], in the losses' unit per unit of Z."""
        return (losses[..., 0::2] - losses[..., 1::2]) / (2 * self.eps)

    def update(self, step: int, losses: torch.Tensor) -> Update:
        """theta -= learning_rate * mean over queries of (projected gradient * Z), Z the measured direction."""
        coefficients = self.projected_gradients(losses) * (-self.learning_rate / self.queries)
        return Update(tuple((self.direction(step, q), coefficients[q]) for q in range(self.queries)))
