"""Sessions as runs of Weights & Biases, grouped as they were run. WANDB_MODE=offline keeps them on this machine."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from bench.harness.tracking import PROJECT, figures, series, title
from bench.result import Result, SessionResult


def log(result: Result, session: SessionResult, folder: Path) -> None:
    import wandb

    rows: dict[int, dict[str, float]] = defaultdict(dict)
    for name, step, value in series(session):
        rows[step][name] = value
    settings = wandb.Settings(silent=True, console="off")
    name, group = title(result, session), result.pair_id or result.id
    started = wandb.init(project=PROJECT, dir=str(folder), settings=settings, name=name, group=group, config=result.spec)
    with started as run:
        for step, values in sorted(rows.items()):
            run.log(values, step=step)
        run.summary.update(figures(session) | {"status": session.status})
