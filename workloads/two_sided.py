"""The two-sided estimator every workload here shares: score theta +- eps Z, step against the projected gradient.

Source: MeZO, arXiv 2305.17333, Definition 1 and Algorithm 1; with several queries, the mean over them (n-SPSA).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api import Direction, Probe, Update
from bench.config import RunSpec

if TYPE_CHECKING:
    import torch


SHORT_RUN: Mapping[str, Any] = {"eps": 1e-3, "steps": 290, "warmup": 10, "evaluate": True}
"""Of opt-tiny: 300 steps on float32 show the fine-tuning at work."""


@dataclass(frozen=True)
class TwoSided(ABC):
    """Settings of a two-sided ZO method with a constant learning rate. Subclasses name the direction."""

    defaults: ClassVar[Mapping[str, Any]] = {}
    tiny: ClassVar[Mapping[str, Any]] = {}
    upstream: ClassVar[str | None] = None

    learning_rate: float
    eps: float
    rank: int
    interval: int
    queries: int
    seed: int

    @classmethod
    def from_spec(cls, spec: RunSpec) -> Self:
        """The workload with the settings of a spec."""
        return cls(spec.learning_rate, spec.eps, spec.rank, spec.interval, spec.queries, spec.seed)

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
