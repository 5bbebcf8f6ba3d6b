"""Sessions as TensorBoard's event files: `tensorboard --logdir results/tensorboard`."""

from __future__ import annotations

import json
from pathlib import Path

from bench.harness.tracking import figures, series, title
from bench.result import Result, SessionResult


def log(result: Result, session: SessionResult, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / title(result, session))) as writer:
        for name, step, value in series(session):
            writer.add_scalar(name, value, step)
        for name, value in figures(session).items():
            writer.add_scalar(name, value, 0)
        lines = json.dumps(result.spec, indent=1).splitlines()
        writer.add_text("specification", "\n".join(f"    {line}" for line in lines))
