"""Simulated sessions whose truth is known: how often intervals hold it, and how often verdicts are wrong.

`python tests/analysis/simulations.py` prints the tables of docs/measuring.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from analysis.statistics import ratio

UNITS = (3, 5, 10, 20)
NOISES = ("normal", "heavy tails", "shared drift")
PAIRS = 1000


def pairs(n: int, noise: str, *, difference: float = 1.0, size: float = 0.05, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Step times [n] of a reference and of a candidate that is `difference` times faster, `size` of relative noise on each.

    heavy tails    Student's t with three degrees of freedom instead of normal noise
    shared drift   normal noise, and a drift of the machine ten times its size that both sides of a round have in common
    """
    generator = np.random.default_rng([seed, n, NOISES.index(noise)])
    heavy = noise == "heavy tails"
    logs = size * (generator.standard_t(3, (2, n)) if heavy else generator.standard_normal((2, n)))
    if noise == "shared drift":
        logs += 10 * size * generator.standard_normal(n)
    reference, candidate = np.exp(logs)
    return difference * reference, candidate


@cache
def simulated(n: int, noise: str, difference: float = 1.0, size: float = 0.05) -> tuple:
    """The ratio of every simulated pair."""
    drawn = (pairs(n, noise, difference=difference, size=size, seed=seed) for seed in range(PAIRS))
    return tuple(ratio(dict(enumerate(a)), dict(enumerate(b))) for a, b in drawn)


def coverage(n: int, noise: str) -> float:
    """Share of 95 % intervals that hold the true ratio."""
    return float(np.mean([found.low <= 1 <= found.high for found in simulated(n, noise)]))


def wrongly_different(n: int, noise: str) -> float:
    """Share of equal pairs that are called faster or slower."""
    return float(np.mean([found.different for found in simulated(n, noise)]))


def called_equal(n: int, noise: str) -> float:
    """Share of equal pairs that are called so."""
    return float(np.mean([found.equal for found in simulated(n, noise)]))


def found(n: int, *, difference: float, noise: float) -> float:
    """Share of pairs with a true difference that are called faster."""
    return float(np.mean([r.different and r.value > 1 for r in simulated(n, "normal", difference, noise)]))


def main() -> None:
    print(f"{PAIRS} simulated pairs each; noise 5 % a unit\n")
    print("| noise | units | 95 % interval holds the truth | equal, called different | equal, called equal |")
    print("|---|---:|---:|---:|---:|")
    for noise in NOISES:
        for n in UNITS:
            shares = (coverage(n, noise), wrongly_different(n, noise), called_equal(n, noise))
            print(f"| {noise} | {n} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    print("\n| a true difference of | noise a unit | " + " | ".join(f"found at {n}" for n in UNITS) + " |")
    print("|---:|---:|" + "---:|" * len(UNITS))
    for difference, noise in ((1.10, 0.02), (1.10, 0.05), (1.25, 0.05), (2.0, 0.10)):
        shares = [found(n, difference=difference, noise=noise) for n in UNITS]
        print(f"| {difference - 1:.0%} | {noise:.0%} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")


if __name__ == "__main__":
    main()
