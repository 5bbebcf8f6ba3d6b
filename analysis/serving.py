"""What training costs the users of a live server: tails of the time to first token beside the steps that were made meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import matplotlib.axes
import numpy as np
import pandas as pd

from analysis.statistics import Sample, center, spread
from analysis.summary import digits, milliseconds
from bench.result import SessionResult

FINDING = "serving"


@dataclass(frozen=True)
class Served:
    """Of the rounds of one policy at one rate; seconds. ttft_p99: geometric mean over the rounds of each one's 99th percentile;
    the others are of all requests together. within: share of all that were asked which got a first token within the bound that
    the runs name. steps_per_s, of_idle: of training, and as a share of what it makes with no user there."""

    headings: ClassVar = ("TTFT p50, ms", "p99, ms", "TPOT p99, ms", "whole p99, ms", "in time", "steps/s", "of idle", "failed")
    keys: ClassVar = ("ttft_p50", "ttft_p99", "tpot_p99", "e2e_p99", "within", "steps_per_s", "of_idle", "failed", "spread")
    ttft_p50: float
    ttft_p99: float
    tpot_p99: float
    e2e_p99: float
    within: float
    steps_per_s: float
    of_idle: float
    failed: int
    spread: float
    n: int
    folds_known: ClassVar = True

    @property
    def value(self) -> float:
        return self.ttft_p99

    def cells(self) -> tuple[str, ...]:
        times = map(milliseconds, (self.ttft_p50, self.ttft_p99, self.tpot_p99, self.e2e_p99))
        return *times, f"{self.within:.1%}", digits(self.steps_per_s, 3), f"{self.of_idle:.0%}", str(self.failed)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.keys}


def served(sessions: Sequence[SessionResult]) -> Served | None:
    """None where no user got an answer."""
    found = [session.findings[FINDING] for session in sessions if session.findings.get(FINDING, {}).get("ttft_s")]
    if not found:
        return None
    tails = [tail(one["ttft_s"]) for one in found]
    ttft, tpot, whole = (np.concatenate([one[name] for one in found]) for name in ("ttft_s", "tpot_s", "e2e_s"))
    asked = sum(one["requests"] for one in found)
    rate = sum(one["steps"] for one in found) / sum(one["train_s"] for one in found)
    return Served(
        ttft_p50=float(np.median(ttft)),
        ttft_p99=center(tails),
        tpot_p99=tail(tpot),
        e2e_p99=tail(whole),
        within=sum(sum(value <= one["bound_s"] for value in one["ttft_s"]) for one in found) / asked,
        steps_per_s=rate,
        of_idle=rate / float(np.mean([one["idle_steps_per_s"] for one in found])),
        failed=sum(one["failed"] for one in found),
        spread=spread(tails),
        n=len(found),
    )


def tails_of(key: str, sessions: Sequence[SessionResult]) -> Sample:
    """The 99th percentile of each round, by what pairs it with the same round of another policy."""
    return {(key, s.index): tail(s.findings[FINDING]["ttft_s"]) for s in sessions if s.findings[FINDING]["ttft_s"]}


def tail(values: Sequence[float] | np.ndarray) -> float:
    return float(np.quantile(values, 0.99)) if len(values) else float("nan")


def picture(table: pd.DataFrame, axes: matplotlib.axes.Axes, styles: Sequence[dict[str, Any]]) -> None:
    """99th percentile of the time to first token against steps/s of training, one curve a policy, one point a rate."""
    wide = table.pivot_table(index=["admission", "users_per_s"], columns="metric", values="value", aggfunc=center_or_zero)
    names = sorted(wide.index.get_level_values(0).unique(), key=lambda name: (name != "off", name))
    for name, style in zip(names, styles, strict=False):
        rows = wide.loc[name].sort_index()
        axes.plot(rows.train_steps_per_s, rows.ttft_p99_s * 1e3, label=name, **style)
        for rate, row in rows.iterrows():
            axes.annotate(
                f"{rate:g}/s",
                (row.train_steps_per_s, row.ttft_p99_s * 1e3),
                fontsize=7,
                xytext=(4, 4),
                textcoords="offset points",
            )
    axes.set(xlabel="training, steps/s", ylabel="time to first token, p99, ms", ylim=(0, None))
    axes.legend(title="policy", fontsize=8)


def center_or_zero(values: pd.Series) -> float:
    """The geometric mean; 0 where nothing was trained."""
    return center(list(values)) if (values > 0).all() else float(values.mean())
