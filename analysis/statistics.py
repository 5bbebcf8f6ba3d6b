"""Medians, spreads and ratios with their uncertainty, and the words for them. Everything here is computed on load, never stored.

A sample is one value per unit: the median step time of a session, or of a block where blocks were interleaved in one process.
With few units a bootstrap interval is too narrow (three values cover the median 75 % of the time at best), hence the verdict
needs a size as well as significance.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
SEED = 20260728
LEVEL = 0.95
ENOUGH = 3
SIZE = 1.05

Sample = Mapping[Hashable, float]
"""Unit -> value. Two samples are paired over the units they share: the same pair_id and index."""


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of n values."""

    median: float
    q1: float
    q3: float
    n: int

    @property
    def iqr(self) -> float:
        return self.q3 - self.q1


@dataclass(frozen=True)
class Ratio:
    """median(reference) / median(candidate): above 1 the candidate is faster. `low` and `high` are None below three units."""

    value: float
    low: float | None
    high: float | None
    n: int
    paired: bool

    @property
    def significant(self) -> bool:
        """The interval leaves 1 outside."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high

    @property
    def large(self) -> bool:
        return max(self.value, 1 / self.value) >= SIZE

    @property
    def verdict(self) -> str:
        """`2.1x faster`, `1.3x slower`, `no clear difference`, `too few sessions`; `~1.1x` where only one of size and
        significance is there."""
        if self.low is None:
            return "too few sessions"
        if self.significant and self.large:
            return f"{times(self.value)} faster" if self.value > 1 else f"{times(1 / self.value)} slower"
        return f"~{times(self.value)}" if self.significant or self.large else "no clear difference"


def times(ratio: float) -> str:
    """A ratio as it is printed: `2.1x`; two decimals close to 1, where one would hide it."""
    return f"{ratio:.2f}x" if 0.9 < ratio < 1.1 else f"{ratio:.1f}x"


def summarize(values: Sequence[float]) -> Summary:
    """Median and quartiles; ValueError for no values."""
    if not len(values):
        raise ValueError("no values to summarize")
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    return Summary(float(median), float(q1), float(q3), len(values))


def ratio(reference: Sample, candidate: Sample) -> Ratio:
    """Ratio of medians with its 95 % bootstrap interval: paired over the shared units if there are any, else unpaired."""
    shared = [unit for unit in reference if unit in candidate]
    a = np.array([reference[unit] for unit in shared or reference])
    b = np.array([candidate[unit] for unit in shared or candidate])
    if not a.size or not b.size:
        raise ValueError("no values to compare")
    value = float(np.median(a) / np.median(b))
    n = min(a.size, b.size)
    if n < ENOUGH:
        return Ratio(value, None, None, n, bool(shared))
    generator = np.random.default_rng(SEED)
    rows = resample(generator, a.size)
    columns = rows if shared else resample(generator, b.size)
    low, high = interval(np.median(a[rows], axis=1) / np.median(b[columns], axis=1))
    return Ratio(value, low, high, n, bool(shared))


def resample(generator: np.random.Generator, n: int) -> np.ndarray:
    """Indices [RESAMPLES, n], drawn with replacement."""
    return generator.integers(0, n, size=(RESAMPLES, n))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
