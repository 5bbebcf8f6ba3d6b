"""The race drawn: the dev split's score over scored minibatches and over seconds of steps, a row for each race."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from analysis.figures import COLOURS, MARKERS
from analysis.race import Entrant, Standing

matplotlib.use("agg")


def curve(entrant: Entrant) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minibatches, seconds and score at every look: medians over the seeds. A seed that has got there keeps its last score."""
    looks = sorted({mark.step for heat in entrant.heats for mark in heat.marks})
    pace = float(np.median([h.marks[-1].seconds / h.marks[-1].step for h in entrant.heats if h.marks] or [0.0]))
    scores = [
        np.median([max((m for m in h.marks if m.step <= at), key=lambda m: m.step).score for h in entrant.heats if h.marks])
        for at in looks
    ]
    steps = np.array(looks, dtype=float)
    return steps * entrant.per_step, steps * pace, np.array(scores)


def draw(standings: Sequence[Standing], output: Path) -> None:
    """Write the figure; the suffix of `output` says in which format."""
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(
        len(standings), 2, figsize=(11, 4 * len(standings)), layout="constrained", squeeze=False, sharey="row"
    )
    order = sorted({entrant.workload for found in standings for entrant in found.entrants})
    for found, axes in zip(standings, rows, strict=True):
        for entrant in found.entrants:
            number = order.index(entrant.workload)
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[(number + number // 9) % len(MARKERS)]}
            minibatches, seconds, scores = curve(entrant)
            for plot, x in zip(axes, (minibatches, seconds), strict=True):
                plot.plot(x, scores, markersize=4, linewidth=1.2, label=entrant.workload, **style)
        metric, _, target = str(found.race.spec["until"]).partition("=")
        for plot, label in zip(axes, ("minibatches scored (log)", "seconds of steps (log)"), strict=True):
            plot.set(xscale="log", xlabel=label)
            plot.grid(color="#dddddd", linewidth=0.6)
            if metric == found.race.metric:
                plot.axhline(float(target), color="black", linewidth=0.8, linestyle="--")
        axes[0].set(ylabel=f"{found.race.metric} of the dev split, median", title=found.race.spec["task"])
        axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(output, dpi=130)
    plt.close(figure)
