"""What two loss trajectories have in common: how far each came, and whether their projected gradients point the same way."""

from __future__ import annotations

import numpy as np

from analysis import paper
from bench.result import Result

WINDOW = 50
"""A single minibatch says little: losses are means over so many steps."""


def loss_change(result: Result | None) -> float | None:
    """Mean loss around the later of the paper's two steps minus that around the earlier; None for shorter runs."""
    early, late = paper.LOSS_CHANGE_STEPS
    if result is None or not result.sessions or len(result.sessions[0].losses) < late:
        return None
    losses = np.mean(result.sessions[0].losses, axis=1)
    return float(losses[late - WINDOW : late].mean() - losses[early - WINDOW : early].mean())


def signs_agree(a: Result | None, b: Result | None) -> dict[str, float] | None:
    """The share of projected gradients of the same sign, of the half that is larger in `a` and of the rest."""
    if a is None or b is None:
        return None
    x, y = (np.ravel(result.sessions[0].projected_gradients) for result in (a, b))
    count = min(len(x), len(y))
    x, y = x[:count], y[:count]
    high = np.abs(x) >= np.median(np.abs(x))
    same = np.sign(x) == np.sign(y)
    return {"high signal": float(same[high].mean()), "low signal": float(same[~high].mean()) if (~high).any() else 1.0}
