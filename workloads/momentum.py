"""Two-sided estimates averaged over the steps: m = beta m + (1 - beta) g, and the parameters move along m.

`--momentum-state kept` holds m; `redrawn` holds the projected gradients alone and draws the newest directions again, as many as
weigh a thousandth of the newest or more: 66 steps at beta 0.9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

from bench.api import Means, Update
from bench.config import RunSpec
from bench.errors import UsageError
from workloads.two_sided import TwoSided

if TYPE_CHECKING:
    import torch

LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Momentum(TwoSided):
    """redraws: why m cannot be drawn again instead of kept; None where it can."""

    redraws: ClassVar[str | None] = None
    beta_square: ClassVar[float | None] = None

    beta: float = field(default=0.9, kw_only=True)
    window: int = field(default=0, kw_only=True)

    @classmethod
    def from_spec(cls, spec: RunSpec) -> Self:
        window = 0
        if spec.momentum_state == "redrawn":
            if cls.redraws is not None:
                raise UsageError(f"--momentum-state redrawn: {cls.name} {cls.redraws}; use --momentum-state kept")
            window = math.ceil(math.log(LEAST_WEIGHT) / math.log(spec.momentum)) if spec.momentum > 0 else 1
        return replace(super().from_spec(spec), beta=spec.momentum, window=window)

    def update(self, step: int, losses: torch.Tensor) -> Update:
        """theta -= rate * m, where m takes in the mean over queries of projected gradient * Z."""
        estimate = self.terms(step, self.projected_gradients(losses) / self.queries)
        means = Means(self.rate(step), self.beta, self.beta_square, self.window)
        return Update(estimate, decay=self.rate(step) * self.weight_decay, means=means)
