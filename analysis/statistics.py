"""One estimator for every ratio, contrast and interval, and the words for them. All of it is computed on load, never stored.

A sample is one value per unit: the amortised step time of a session, or of a block where blocks were interleaved in one process.
Ratios are linear in the logarithms of the units, so parts multiply exactly to their total. Intervals are Student's t over the
paired units, or Welch's where units are not paired: at three units they are wide, and still cover the truth as often as they say.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, isfinite, log

import numpy as np
from scipy import stats

LEVEL = 0.95
ENOUGH = 3
SIZE = 1.05
SKEWED, RESAMPLED, RESAMPLES, SEED = 1.0, 10, 2_000, 20260728
MOST = 1_000

Sample = Mapping[Hashable, float]
"""Unit -> seconds. Two samples are paired over the units they share: the same pair_id and index."""


@dataclass(frozen=True)
class Ratio:
    """Step time of the reference over that of the candidate: above 1 the candidate is faster.

    low, high   of the 95 % interval; None below three units
    n           units, of the smaller sample
    more        about how many more units an answer takes, from the spread seen; None where there is one
    unit        what one value of a sample is, in words
    """

    value: float
    low: float | None
    high: float | None
    n: int
    paired: bool
    more: int | None = None
    unit: str = "session"

    @property
    def significant(self) -> bool:
        """The interval leaves 1 outside."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high

    @property
    def different(self) -> bool:
        """Significant, and at least 5 % from 1."""
        return self.significant and max(self.value, 1 / self.value) >= SIZE

    @property
    def equal(self) -> bool:
        """The whole interval lies within 5 % of 1."""
        return self.low is not None and self.high is not None and self.low >= 1 / SIZE and self.high <= SIZE

    @property
    def verdict(self) -> str:
        """`2.1x faster`, `1.3x slower`, `no difference (within 5 %)`, or `undecided: about 4 more sessions`."""
        if self.different:
            return f"{times(self.value)} faster" if self.value > 1 else f"{times(1 / self.value)} slower"
        if self.equal:
            return "no difference (within 5 %)"
        return f"undecided: about {self.more} more {self.unit}{'' if self.more == 1 else 's'}"

    @property
    def interval(self) -> str:
        """`1.90 to 2.31`; empty where there is none."""
        return "" if self.low is None or self.high is None else f"{self.low:.2f} to {self.high:.2f}"


def times(ratio: float) -> str:
    """A ratio as it is printed: `2.1x`; two decimals close to 1, where one would hide it."""
    return f"{ratio:.2f}x" if 0.9 < ratio < 1.1 else f"{ratio:.1f}x"


def center(values: Sequence[float]) -> float:
    """The geometric mean, what ratios are made of; ValueError for no values."""
    if not len(values):
        raise ValueError("no values to summarize")
    return float(np.exp(np.mean(np.log(values))))


def spread(values: Sequence[float]) -> float:
    """The standard deviation of the logarithms, so about the relative one; 0 for a single value."""
    return float(np.std(np.log(values), ddof=1)) if len(values) > 1 else 0.0


def ratio(reference: Sample, candidate: Sample, unit: str = "session") -> Ratio:
    """Step time of the reference / step time of the candidate; ValueError when a sample is empty."""
    return contrasts([reference, candidate], np.array([[-1.0, 1.0]]), unit)[0]


def contrasts(samples: Sequence[Sample], weights: np.ndarray, unit: str = "session") -> list[Ratio]:
    """exp(weights @ gains) for weights [contrasts, samples], where the gain of a sample is minus the mean logarithm of its units.

    Paired over the units that all samples share (the blocks of one interleaved run), else each sample stands by itself.
    """
    if not all(samples):
        raise ValueError("no values to compare")
    shared = [key for key in samples[0] if all(key in sample for sample in samples)]
    gains = [-np.log([sample[key] for key in shared or sample]) for sample in samples]
    if shared:
        units = weights @ np.array(gains)
        return [_estimate(row, unit) for row in units]
    return [_welch(row, gains, unit) for row in weights]


def _estimate(units: np.ndarray, unit: str) -> Ratio:
    """Of one contrast, from its logarithm in every unit. Where they are skewed, and enough, the interval also holds the
    studentised bootstrap's, which follows the skew; Student's alone would cover too little (docs/measuring)."""
    n, mean = len(units), float(np.mean(units))
    if n < ENOUGH:
        return Ratio(exp(mean), None, None, n, True, ENOUGH - n, unit)
    error = float(np.std(units, ddof=1)) / n**0.5
    half = _student(n - 1) * error
    low, high = mean - half, mean + half
    if n >= RESAMPLED and error > 1e-12 and abs(np.mean((units - mean) ** 3)) > SKEWED * np.std(units) ** 3:
        bounds = _studentised(units, mean, error)
        low, high = min(low, bounds[0]), max(high, bounds[1])
    return _decided(mean, low, high, error * n**0.5, n, paired=True, unit=unit)


def _welch(weights: np.ndarray, gains: Sequence[np.ndarray], unit: str) -> Ratio:
    """A contrast of samples that share nothing; degrees of freedom after Welch and Satterthwaite."""
    used = [(weight, values) for weight, values in zip(weights, gains, strict=True) if weight]
    n = min((len(values) for _, values in used), default=0)
    mean = float(sum(weight * np.mean(values) for weight, values in used))
    if n < ENOUGH:
        return Ratio(exp(mean), None, None, n, False, ENOUGH - n, unit)
    parts = [weight**2 * np.var(values, ddof=1) / len(values) for weight, values in used]
    total = float(sum(parts))
    freedom = total**2 / sum(p**2 / (len(v) - 1) for p, (_, v) in zip(parts, used, strict=True)) if total else n - 1
    half = _student(freedom) * total**0.5
    return _decided(mean, mean - half, mean + half, (total * n) ** 0.5, n, paired=False, unit=unit)


def _decided(mean: float, low: float, high: float, deviation: float, n: int, *, paired: bool, unit: str) -> Ratio:
    found = Ratio(exp(mean), exp(low), exp(high), n, paired, unit=unit)
    if found.different or found.equal:
        return found
    return Ratio(found.value, found.low, found.high, n, paired, _more(mean, deviation, n), unit)


def _more(mean: float, deviation: float, n: int) -> int:
    """About how many more units until the interval leaves 1 outside, or lies within 5 % of it, should mean and spread stay."""
    room = abs(mean) if abs(mean) >= log(SIZE) else log(SIZE) - abs(mean)
    count = n + 1
    while count < MOST and _student(count - 1) * deviation / count**0.5 > room:
        count = ceil(count * 1.05)
    return int(float(f"{count - n:.1g}")) if count - n > 20 else count - n


@lru_cache(maxsize=4096)
def _student(freedom: float) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def _studentised(units: np.ndarray, mean: float, error: float) -> tuple[float, float]:
    """The bootstrap-t interval (Efron and Tibshirani 1993, chapter 12): quantiles of (resampled mean - mean) / its own error."""
    n = len(units)
    drawn = units[np.random.default_rng(SEED).integers(0, n, size=(RESAMPLES, n))]
    errors = drawn.std(axis=1, ddof=1) / n**0.5
    whole = errors > 0
    found = (drawn.mean(axis=1)[whole] - mean) / errors[whole]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    bounds = mean - float(high) * error, mean - float(low) * error
    return bounds if all(map(isfinite, bounds)) else (mean, mean)
