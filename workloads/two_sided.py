"""The two-sided estimator: score theta +- eps Z, step against the projected gradient.

Source: MeZO, arXiv 2305.17333, Definition 1 and Algorithm 1; with several queries, the mean over them (n-SPSA).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bench.api import Probe
from workloads.method import Method

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TwoSided(Method):
    """Subclasses name the direction."""

    forwards: ClassVar[str] = "2 q"

    def plan(self, step: int) -> tuple[Probe, ...]:
        """(+eps, -eps) for each query."""
        directions = [self.direction(step, query) for query in range(self.queries)]
        return tuple(Probe(d, shift) for d in directions for shift in (self.eps, -self.eps))

    def projected_gradients(self, losses: torch.Tensor) -> torch.Tensor:
        """(loss_plus - loss_minus) / (2 eps): losses [..., 2 q] to [..., q]."""
        return (losses[..., 0::2] - losses[..., 1::2]) / (2 * self.eps)
