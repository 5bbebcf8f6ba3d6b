"""How much of a speed-up each factor brings: Shapley values of log step time over a factorial, their interactions, and a ladder.

Shapley, "A value for n-person games" (1953): a factor's contribution is its mean effect over all orders of switching the factors
on. In logarithms contributions add up, so as ratios they multiply exactly to the ratio from all-off to all-on. Interactions are
the Shapley interaction index (Grabisch and Roubens 1999): above 1, two factors help one another; below, they overlap.
Every figure is one linear contrast of the logarithms of step times (`analysis.statistics.contrasts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from math import factorial

import numpy as np

from analysis.statistics import Ratio, Sample, contrasts

Subset = frozenset[str]


@dataclass(frozen=True)
class Attribution:
    """contributions and interactions as ratios of step times; `total` is from all-off to all-on, their product."""

    factors: tuple[str, ...]
    contributions: Mapping[str, Ratio]
    interactions: Mapping[tuple[str, str], Ratio]
    total: Ratio


def attribute(samples: Mapping[Subset, Sample]) -> Attribution:
    """Attribution over the full factorial: a sample of step times for every set of factors that are on."""
    factors = tuple(sorted(frozenset().union(*samples)))
    points = subsets(factors)
    if set(points) != set(samples):
        missing = ["+".join(sorted(point)) or "all off" for point in points if point not in samples]
        raise ValueError(f"not a full factorial of {', '.join(factors)}: missing {', '.join(missing) or 'nothing, but too many'}")
    pairs = list(combinations(factors, 2))
    weights = np.vstack([shapley(factors), interactions(factors), _between(points, points[0], points[-1])])
    found = contrasts([samples[point] for point in points], weights)
    return Attribution(
        factors,
        dict(zip(factors, found, strict=False)),
        dict(zip(pairs, found[len(factors) :], strict=False)),
        found[-1],
    )


def subsets(factors: Sequence[str]) -> list[Subset]:
    """All sets of factors, from none to all."""
    return [frozenset(chosen) for size in range(len(factors) + 1) for chosen in combinations(factors, size)]


def shapley(factors: Sequence[str]) -> np.ndarray:
    """Weights [factors, subsets] on the gains: the mean over all orders of the gain from switching a factor on."""
    points = subsets(factors)
    weights = np.zeros((len(factors), len(points)))
    orders = list(permutations(factors))
    for order in orders:
        for position, factor in enumerate(order):
            before = frozenset(order[:position])
            weights[factors.index(factor)] += _between(points, before, before | {factor}) / len(orders)
    return weights


def interactions(factors: Sequence[str]) -> np.ndarray:
    """Weights [pairs, subsets] on the gains: what two factors gain together beyond each alone, averaged over the others."""
    points, rows = subsets(factors), []
    for a, b in combinations(factors, 2):
        row = np.zeros(len(points))
        for others in subsets([f for f in factors if f not in (a, b)]):
            size, k = len(others), len(factors)
            weight = factorial(size) * factorial(k - 2 - size) / factorial(k - 1)
            both = _between(points, others | {a}, others | {a, b})
            row += weight * (both - _between(points, others, others | {b}))
        rows.append(row)
    return np.array(rows).reshape(-1, len(points))


def _between(points: Sequence[Subset], start: Subset, end: Subset) -> np.ndarray:
    """The contrast that leads from one point to another."""
    row = np.zeros(len(points))
    row[points.index(end)] += 1
    row[points.index(start)] -= 1
    return row
