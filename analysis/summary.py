"""The figures of one run by each metric: the amortised step that ratios are made of, with what single steps took beside it; or
what it took to get to a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from analysis.statistics import center, spread
from bench.result import SessionResult
from bench.steptimes import step_times

TAILS = {"p95": (0.95, 20), "p99": (0.99, 100)}
"""Name -> (quantile, how many steps it takes to know it)."""


@dataclass(frozen=True)
class Summary:
    """Seconds of a core step.

    amortised   geometric mean over the units of their means over whole intervals of V, without folds where not `folds_known`
    median      of all timed steps; p95 and p99 likewise, None where there are too few steps to know them
    spread      of the units: the standard deviation of their logarithms, so about the relative one
    n           units
    """

    headings: ClassVar = ("amortised, ms", "median, ms", "p95, ms", "p99, ms")
    keys: ClassVar = ("step_s", "step_s_median", "step_s_p95", "step_s_p99", "spread", "folds_known")
    amortised: float
    median: float
    p95: float | None
    p99: float | None
    spread: float
    n: int
    folds_known: bool

    @property
    def value(self) -> float:
        return self.amortised

    def cells(self) -> tuple[str, ...]:
        """In the order of `headings`."""
        return tuple(map(milliseconds, (self.amortised if self.folds_known else None, self.median, self.p95, self.p99)))

    def to_json(self) -> dict[str, Any]:
        found = (self.amortised, self.median, self.p95, self.p99, self.spread, self.folds_known)
        return dict(zip(self.keys, found, strict=True))


@dataclass(frozen=True)
class ToTarget:
    """What a run took to get where --until said. seconds: of core steps, evaluations apart, geometric mean over its sessions."""

    headings: ClassVar = ("to the target, s", "steps", "minibatches scored")
    keys: ClassVar = ("target_s", "target_steps", "target_forwards", "spread")
    seconds: float
    steps: float
    forwards: float
    spread: float
    n: int
    folds_known: ClassVar = True

    @property
    def value(self) -> float:
        return self.seconds

    def cells(self) -> tuple[str, ...]:
        return digits(self.seconds), digits(self.steps), digits(self.forwards)

    def to_json(self) -> dict[str, Any]:
        return dict(zip(self.keys, (self.seconds, self.steps, self.forwards, self.spread), strict=True))


def summarize(sessions: Sequence[SessionResult]) -> Summary:
    """ValueError where there are none, or one without timed steps."""
    units = [step_times(session) for session in sessions]
    values = [unit.best_known for unit in units]
    steps = [seconds for session in sessions for seconds in session.step_s]
    tails = {name: float(np.quantile(steps, q)) if len(steps) >= least else None for name, (q, least) in TAILS.items()}
    known = all(unit.amortised is not None for unit in units)
    return Summary(center(values), float(np.median(steps)), **tails, spread=spread(values), n=len(units), folds_known=known)


def to_target(sessions: Sequence[SessionResult]) -> ToTarget | None:
    """None where a session did not get there: the time of those that did would flatter."""
    found = [session.reached for session in sessions if session.reached]
    if not found or len(found) < len(sessions):
        return None
    seconds = [one.seconds for one in found]
    steps, forwards = center([one.step for one in found]), center([one.forwards for one in found])
    return ToTarget(center(seconds), steps, forwards, spread(seconds), len(found))


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else digits(seconds * 1e3)


def digits(value: float, significant: int = 4) -> str:
    """A number with so many digits at least, never in powers of ten."""
    return f"{value:.{significant}g}" if value < 10**significant else f"{value:.0f}"
