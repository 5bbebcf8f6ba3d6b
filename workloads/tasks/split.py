"""Which rows are for training, for dev, held out, shown as demonstrations: upstream's choice, by the same seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.errors import UsageError
from workloads.tasks.task import Row, Sizes

MOST_HELD_OUT = 1000
"""Upstream judges by at most so many rows."""


def subset(rows: int, count: int, seed: int | None) -> list[int]:
    """The first of a seeded permutation, as MeZO's and LoZO's code draws them; of the rows in order for None."""
    order = range(rows) if seed is None else np.random.RandomState(seed).permutation(rows)
    return [int(row) for row in order[:count]]


def train_and_dev(rows: int, sizes: Sizes, seed: int | None, common: int) -> tuple[list[int], list[int], list[int]]:
    """(common demonstrations, train, dev) of so many training rows.

    Dev are the last of those chosen; where there are fewer rows than the published run has, a third of them.
    """
    chosen = subset(rows, common + sizes.train + sizes.dev, seed)
    shown, chosen = chosen[:common], chosen[common:]
    dev = sizes.dev if len(chosen) == sizes.train + sizes.dev else len(chosen) // 3
    if not dev:
        asked = f"--demonstrations {common}" if common else "--data"
        raise UsageError(f"{asked}: too few rows: {rows} to train on, and {common + 3} are needed at least; give more rows")
    cut = len(chosen) - dev
    return shown, chosen[:cut], chosen[cut:]


def held_out(rows: int, seed: int) -> list[int]:
    """All of them in order, or a seeded thousand."""
    return list(range(rows)) if rows <= MOST_HELD_OUT else subset(rows, MOST_HELD_OUT, seed)


def own_demonstrations(rows: int, each: int, prompts: int) -> list[list[int]]:
    """Training rows to show before each held-out prompt, a set for every one: what upstream's in-context script draws."""
    if not each:
        return []
    seeds = np.random.RandomState(0).randint(0, 10000, max(prompts, MOST_HELD_OUT))[:prompts]
    return [subset(rows, each, int(seed)) for seed in seeds]


def without_validation(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """(train, held out) of a file without validation rows: its last fifth."""
    cut = max(1, len(rows) // 5)
    return rows[:-cut], rows[-cut:]
