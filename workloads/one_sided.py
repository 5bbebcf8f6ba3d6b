"""The one-sided estimator: theta is scored once, theta + eps Z for each of q directions, g = (loss_i - loss_0) / eps.

q + 1 forwards instead of 2 q, at the price of a bias of order eps. Z is low-rank as LoZO's: one V for all queries, so that on
adapters all q + 1 states stand in one batch. Source: the estimate of arXiv 2506.09034, without the normalisation of its step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Direction, Kind, Probe
from workloads.method import SHORT_RUN, Method

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OneSided(Method):
    """Probe 0 is theta itself, a shift of 0 along the first direction."""

    name: ClassVar[str] = "one-sided"
    kind: ClassVar[Kind] = "lowrank"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "theta -= lr * mean of g Z, g_i = (L_i - L_0) / eps"
    source: ClassVar[str] = "arXiv 2506.09034, its estimate"
    defaults: ClassVar[Mapping[str, Any]] = {"queries": 4}
    tiny: ClassVar[Mapping[str, Any]] = {**SHORT_RUN, "learning_rate": 1e-3}
    forwards: ClassVar[str] = "q + 1"

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query, self.rank, self.interval)

    def plan(self, step: int) -> tuple[Probe, ...]:
        """theta, then theta + eps Z of each query."""
        directions = [self.direction(step, query) for query in range(self.queries)]
        return Probe(directions[0], 0.0), *(Probe(d, self.eps) for d in directions)

    def projected_gradients(self, losses: torch.Tensor) -> torch.Tensor:
        """(loss_i - loss_0) / eps: losses [..., q + 1] to [..., q]."""
        return (losses[..., 1:] - losses[..., :1]) / self.eps
