"""The figures of one run: the amortised step that ratios are made of, and beside it what single steps took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    amortised: float
    median: float
    p95: float | None
    p99: float | None
    spread: float
    n: int
    folds_known: bool


def summarize(sessions: Sequence[SessionResult]) -> Summary:
    """ValueError where there are none, or one without timed steps."""
    units = [step_times(session) for session in sessions]
    values = [unit.best_known for unit in units]
    steps = [seconds for session in sessions for seconds in session.step_s]
    tails = {name: float(np.quantile(steps, q)) if len(steps) >= least else None for name, (q, least) in TAILS.items()}
    known = all(unit.amortised is not None for unit in units)
    return Summary(center(values), float(np.median(steps)), **tails, spread=spread(values), n=len(units), folds_known=known)
