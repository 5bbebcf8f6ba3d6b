"""The loss of every run over its steps, so that one sees fine-tuning work and trajectories overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from analysis.runs import Run

matplotlib.use("agg")

WINDOW = 20
DASHES = ("", (4, 2), (1, 1), (6, 2, 1, 2), (3, 1, 1, 1, 1, 1))


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a step: run, step, loss (mean of the probes, nats), smoothed over WINDOW steps within a session."""
    rows = []
    for run in runs:
        for session in run.sessions[:1]:
            means = pd.Series([sum(losses) / len(losses) for losses in session.losses])
            smooth = means.rolling(WINDOW, min_periods=1).mean()
            rows += [{"run": name(run, runs), "step": step, "loss": loss} for step, loss in enumerate(smooth)]
    return pd.DataFrame(rows, columns=["run", "step", "loss"])


def name(run: Run, among: Sequence[Run]) -> str:
    """What tells a run from the others: its label, and its workload, model and rank where they differ."""
    words = [run.label]
    if len({r.spec["workload"] for r in among}) > 1:
        words.insert(0, run.spec["workload"])
    if len({r.spec["model"] for r in among}) > 1:
        words.append(run.spec["model"])
    if run.rank is not None and len({r.rank for r in among} - {None}) > 1:
        words.append(f"rank {run.rank}")
    return ", ".join(words)


def draw(runs: Sequence[Run], output: Path) -> None:
    """Write the figure; the suffix of `output` says in which format."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    data = table(runs)
    names = list(dict.fromkeys(data["run"]))
    dashes = {name: DASHES[i % len(DASHES)] for i, name in enumerate(names)}
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    sns.lineplot(data, x="step", y="loss", hue="run", style="run", dashes=dashes, palette="colorblind", errorbar=None, ax=axes)
    axes.set(xlabel="step", ylabel=f"loss, nats (mean over {WINDOW} steps)", ylim=(0, None))
    workloads, models = (", ".join(dict.fromkeys(run.spec[key] for run in runs)) for key in ("workload", "model"))
    axes.set_title(f"{workloads} on {models}, {runs[0].spec['task']}")
    axes.legend(title=None)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
    plt.close(figure)
