"""Where a run is to get: `accuracy=0.9`, `f1=0.5` or `loss=0.3`, all of the dev split, at which it stops."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.errors import UsageError

LOSS = "loss"
EVERY = 25
"""Steps from one look at the dev split to the next, unless --eval-every says otherwise."""


@dataclass(frozen=True)
class Until:
    """metric: of the task, or `loss`; a score has to be at least, a loss at most, the value."""

    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Until:
        """UsageError for what is no `metric=value`."""
        metric, equals, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (metric.strip() and equals and math.isfinite(value)):
            raise UsageError(f"--until {text}: must be a metric and a number, such as accuracy=0.9 or loss=0.3")
        return cls(metric.strip(), value)

    def check(self, metric: str) -> None:
        """UsageError where a task is not judged by this; `metric` is what it is judged by."""
        if self.metric not in (metric, LOSS):
            raise UsageError(
                f"--until {self.metric}={self.value:g}: the task is judged by {metric}; give {metric}=... or loss=..."
            )

    def reached(self, score: float, loss: float) -> bool:
        return loss <= self.value if self.metric == LOSS else score >= self.value
