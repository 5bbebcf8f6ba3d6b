"""Sessions as runs of MLflow: in the store of MLFLOW_TRACKING_URI, or in a database beside the results."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from bench.harness.tracking import PROJECT, figures, series, title
from bench.result import Result, SessionResult

AT_ONCE = 1000
"""MLflow takes no more metrics in one call."""


def log(result: Result, session: SessionResult, folder: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    here = f"sqlite:///{folder.absolute()}/mlflow.db"
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or here)
    experiment = client.get_experiment_by_name(PROJECT)
    number = experiment.experiment_id if experiment else client.create_experiment(PROJECT)
    tags = {"group": result.pair_id or result.id, "status": session.status}
    run = client.create_run(number, run_name=title(result, session), tags=tags).info.run_id
    now = int(time.time() * 1e3)
    metrics = [Metric(name, value, now, step) for name, step, value in series(session)]
    metrics += [Metric(name, value, now, 0) for name, value in figures(session).items()]
    params = [Param(name, str(value)) for name, value in result.spec.items() if value is not None]
    client.log_batch(run, params=params)
    for start in range(0, len(metrics), AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + AT_ONCE])
    client.set_terminated(run)
