"""The score of every run over its steps, task by task: fine-tuning at work, and its control beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from analysis.losses import DASHES
from analysis.runs import Run

matplotlib.use("agg")


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row an evaluation on dev: task, metric, run (workload and label), step, score, and its standard error."""
    rows = []
    for run in runs:
        for found in (e for session in run.sessions[:1] for e in session.evaluations if e.split == "dev"):
            names = {"task": run.spec["task"], "metric": found.metric, "run": f"{run.spec['workload']}, {run.label}"}
            rows.append(names | {"step": found.step, "score": found.accuracy, "error": found.standard_error})
    return pd.DataFrame(rows, columns=["task", "metric", "run", "step", "score", "error"])


def draw(runs: Sequence[Run], output: Path) -> None:
    """Write the figure, a panel for each task; bands are standard errors. The suffix of `output` says in which format."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    data = table(runs)
    tasks, names = (list(dict.fromkeys(data[key])) for key in ("task", "run"))
    figure, panels = plt.subplots(1, len(tasks), figsize=(4.6 * len(tasks), 3.6), layout="constrained", squeeze=False)
    for axes, task in zip(panels[0], tasks, strict=True):
        for name, colour, dash in zip(names, sns.color_palette("colorblind", len(names)), _dashes(len(names)), strict=True):
            line = data[(data.task == task) & (data.run == name)].sort_values("step")
            axes.plot(line.step, line.score, color=colour, dashes=dash, label=name)
            axes.fill_between(line.step, line.score - line.error, line.score + line.error, color=colour, alpha=0.15, linewidth=0)
        metric = str(data[data.task == task].metric.iloc[0]).replace("_", " ")
        axes.set(title=task, xlabel="step", ylabel=f"{metric} on dev", ylim=(0, 1))
    panels[0][-1].legend(fontsize=8)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
    plt.close(figure)


def _dashes(count: int) -> list[tuple[int, ...]]:
    """A pattern for each line, so that they read in black and white too; the first is drawn through."""
    return [tuple(DASHES[i % len(DASHES)]) or (1, 0) for i in range(count)]  # type: ignore[arg-type]
