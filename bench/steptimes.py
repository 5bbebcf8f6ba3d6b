"""How long a core step of a session takes, from its raw seconds: one reading for every table, ratio and estimate.

The headline is the amortised mean over whole intervals of V: steps that fold are few and long, so plain steps and folds are
averaged apart and weighted by how often each comes. A median never shows a fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median

from bench.result import SessionResult


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a core step in one session or block.

    plain       mean of the steps that neither fold nor follow a pause; of files that do not say which those are, the median
    fold        mean of the steps that fold; None where none was timed
    amortised   mean over whole intervals of V; None where the file does not tell, or no fold was timed though there are some
    """

    plain: float
    fold: float | None
    amortised: float | None

    @property
    def best_known(self) -> float:
        return self.plain if self.amortised is None else self.amortised


def step_times(session: SessionResult) -> StepTimes:
    """ValueError for a session without timed steps."""
    if not session.step_s:
        raise ValueError("no timed steps")
    if not session.kinds:
        return StepTimes(median(session.step_s), None, None)
    timed = list(zip(session.step_s, session.kinds[len(session.warmup_s) :], strict=True))
    folds = [seconds for seconds, kind in timed if kind == "fold"]
    others = [seconds for seconds, kind in timed if kind != "fold"]
    steady = [seconds for seconds, kind in timed if kind not in ("fold", "paused")] or others or folds
    plain, fold, every = fmean(steady), fmean(folds) if folds else None, session.fold_every
    if every is None:
        return StepTimes(plain, None, plain)
    if fold is None:
        return StepTimes(plain, None, None)
    return StepTimes(plain, fold, ((every - 1) * plain + fold) / every)
