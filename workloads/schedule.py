"""The learning rate over the steps: a pure function of the step, so that a run replays from its settings.

A ramp up over `warmup` steps, (t + 1) / warmup, then constant, or down to nothing at the last step: linear
(T - t) / (T - warmup), or cosine (1 + cos(pi (t - warmup) / (T - warmup))) / 2 (arXiv 1608.03983, equation 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from bench.config import RunSpec
from bench.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """shape: constant, linear or cosine; total: steps of the whole run, those before the timed ones included."""

    shape: str = "constant"
    warmup: int = 0
    total: int = 0

    @classmethod
    def from_spec(cls, spec: RunSpec) -> Self:
        total = spec.warmup + spec.steps
        if spec.lr_warmup >= total:
            raise UsageError(f"--lr-warmup {spec.lr_warmup}: the run has {total} steps in all; give fewer than that")
        return cls(spec.lr_schedule, spec.lr_warmup, total)

    def share(self, step: int) -> float:
        """Of the learning rate, between 0 and 1; 0 from step `total` on for shapes that go down."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.shape == "constant":
            return 1.0
        gone = min(1.0, (step - self.warmup) / (self.total - self.warmup))
        return 1.0 - gone if self.shape == "linear" else (1.0 + math.cos(math.pi * gone)) / 2
