"""The conservative step: measure g along Z as LoZO does, then score theta and theta -+ lr g Z and keep the best of the three.

Source: arXiv 2402.11592 (ZO-SGD-Cons): no step makes its own minibatch worse. Z is low-rank as LoZO's; one query a step, for the
states that are compared lie on one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from bench.api import Probe
from bench.config import RunSpec
from bench.errors import UsageError
from workloads.lozo import LoZO

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Conservative(LoZO):
    """Losses [5]: theta + eps Z, theta - eps Z, then theta, theta - lr g Z, theta + lr g Z."""

    name: ClassVar[str] = "conservative"
    version: ClassVar[int] = 1
    formula: ClassVar[str] = "the best of theta, theta - lr g Z, theta + lr g Z"
    source: ClassVar[str] = "arXiv 2402.11592"
    upstream: ClassVar[str | None] = None
    forwards: ClassVar[str] = "2 + 3"

    @classmethod
    def from_spec(cls, spec: RunSpec) -> Self:
        if spec.queries != 1:
            raise UsageError(f"--queries {spec.queries}: {cls.name} compares states along one direction; give 1")
        return super().from_spec(spec)

    def then(self, step: int, losses: torch.Tensor) -> tuple[Probe, ...]:
        """theta and where the measured slope would lead, downhill and uphill. Waits for the losses of the plan."""
        shift, direction = float(self._downhill(step, losses)), self.direction(step, 0)
        return tuple(Probe(direction, at) for at in (0.0, shift, -shift))

    def projected_gradients(self, losses: torch.Tensor) -> torch.Tensor:
        """(loss_plus - loss_minus) / (2 eps): losses [..., 5] or [..., 2] to [..., 1]."""
        return super().projected_gradients(losses[..., :2])

    def coefficients(self, step: int, losses: torch.Tensor) -> torch.Tensor:
        """Of the three the one with the least loss: 0, -lr g or lr g; the first of equal ones. [1]."""
        shift = self._downhill(step, losses)
        import torch

        return torch.stack([torch.zeros_like(shift), shift, -shift]).index_select(0, losses[2:].argmin()[None])

    def _downhill(self, step: int, losses: torch.Tensor) -> torch.Tensor:
        """-lr g, 0-d."""
        return self.projected_gradients(losses)[0] * -self.rate(step)
