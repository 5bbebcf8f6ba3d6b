"""What each feature is worth, task by task: the same attribution over rows of different shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.path import AttributionPath
from analysis.points import NAMES
from analysis.statistics import Ratio

COLOURS, HATCHES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), ("", "//", "..", "xx")


def features_by_task(paths: Sequence[AttributionPath]) -> Figure | None:
    """What each feature contributes, averaged over their orders, for every task that was ablated; lines are 95 % intervals."""
    import matplotlib.pyplot as plt

    found = contributions(paths)
    if len(found) < 2:
        return None
    features = list(next(iter(found.values())))
    figure, axes = plt.subplots(figsize=(9, 1.4 + 0.25 * len(found) * len(features)), layout="constrained")
    height = 0.8 / len(features)
    for i, feature in enumerate(features):
        for at, ratios in enumerate(found.values()):
            ratio, y = ratios[feature], at + (i - (len(features) - 1) / 2) * height
            style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)]}
            style |= {"edgecolor": "black", "linewidth": 0.6, "label": feature if at == 0 else None}
            axes.barh(y, ratio.value - 1, height, left=1, **style)
            if ratio.low is not None and ratio.high is not None:
                axes.plot([ratio.low, ratio.high], [y, y], color="black", linewidth=1.2)
            axes.text(1.01, y, f"{ratio.value:.2f}x", transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(yticks=np.arange(len(found)), yticklabels=list(found), xscale="log", xlabel="speed-up (log scale)")
    axes.set_xticks([1, 1.5, 2, 3], ["1", "1.5", "2", "3"])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.legend(fontsize=8, loc="lower right")
    return figure


def contributions(paths: Sequence[AttributionPath]) -> dict[str, dict[str, Ratio]]:
    """Task and batch size -> feature -> its ratio, from the full paths of one executor (vllm where there is one)."""
    executor = max((path.executor for path in paths), default="")
    full = [path for path in paths if path.kv == "shared" and path.executor == executor]
    found = {}
    for path in full:
        spec, parts = path.first.spec, {part.name: part.ratio for part in path.parts}
        name = f"{spec['task']}, batch {spec['batch_size']}"
        found[name] = {feature: parts[feature] for feature in NAMES.values() if feature in parts}
    return found
