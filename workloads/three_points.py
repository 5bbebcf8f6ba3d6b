"""Stochastic three points: score theta and theta +- lr Z on one batch and keep the best, so that no step makes its batch worse.

Source: arXiv 1902.03591, Algorithm 1. With several queries, the best of theta and all theta +- lr Z_i. It is the conservative
step of arXiv 2402.11592 with a length that is known before the losses; that paper's, lr g Z, needs a second round of scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api import Direction, Kind, Probe
from bench.config import RunSpec
from bench.errors import UsageError
from workloads.method import SHORT_RUN, Method

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ThreePoints(Method):
    """eps plays no part: what is scored is where the step may go. Z is low-rank as LoZO's."""

    name: ClassVar[str] = "three-points"
    kind: ClassVar[Kind] = "lowrank"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "the best of theta, theta + lr Z_i, theta - lr Z_i"
    source: ClassVar[str] = "arXiv 1902.03591"
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 3e-3}
    forwards: ClassVar[str] = "2 q + 1"

    @classmethod
    def from_spec(cls, spec: RunSpec) -> Self:
        if spec.learning_rate == 0:
            raise UsageError(f"--learning-rate 0: {cls.name} scores theta +- learning rate * Z; give a rate above 0")
        return super().from_spec(spec)

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query, self.rank, self.interval)

    def plan(self, step: int) -> tuple[Probe, ...]:
        """theta, then theta + rate Z and theta - rate Z of each query."""
        directions, rate = [self.direction(step, query) for query in range(self.queries)], self.rate(step)
        return Probe(directions[0], 0.0), *(Probe(d, shift) for d in directions for shift in (rate, -rate))

    def projected_gradients(self, losses: torch.Tensor) -> torch.Tensor:
        """(loss_plus - loss_minus) / (2 learning_rate): [..., 2 q + 1] to [..., q]; times what a schedule left of the step."""
        return (losses[..., 1::2] - losses[..., 2::2]) / (2 * self.learning_rate)

    def coefficients(self, step: int, losses: torch.Tensor) -> torch.Tensor:
        """+rate or -rate for the query whose state was the best of all, if it is better than theta; else 0."""
        import torch

        moved = losses[1:]
        chosen = (torch.arange(len(moved), device=moved.device) == moved.argmin()) & (moved.min() < losses[0])
        return (chosen[0::2].float() - chosen[1::2].float()) * self.rate(step)
