"""`--log-to`: finished sessions in an experiment tracker, through the tracker's own library.

A session is handed over when it has ended, so that nothing of a tracker runs beside the steps that are timed. Where a tracker
keeps its data, and whether it may use the network, is the tracker's own business (WANDB_MODE, MLFLOW_TRACKING_URI); by
default it is a folder of its name beside the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

from bench.errors import UsageError
from bench.registry import known, load
from bench.result import Result, SessionResult
from bench.steptimes import step_times

PROJECT = "zo-bench"


@dataclass(frozen=True)
class Tracker:
    """packages: what pip installs; modules: what of it is imported; log: "module:function" of (result, session, folder)."""

    packages: str
    modules: tuple[str, ...]
    log: str


TRACKERS = {
    "tensorboard": Tracker("tensorboard", ("tensorboard",), "bench.harness.tracking.to_tensorboard:log"),
    "wandb": Tracker("wandb", ("wandb",), "bench.harness.tracking.to_wandb:log"),
    "mlflow": Tracker(
        "mlflow-skinny sqlalchemy alembic", ("mlflow", "sqlalchemy", "alembic"), "bench.harness.tracking.to_mlflow:log"
    ),
}


def check(names: Sequence[str]) -> None:
    """UsageError for a tracker that is not known or not installed."""
    for name in names:
        tracker = TRACKERS[known({name: "" for name in TRACKERS}, "--log-to", name)]
        if not all(map(_installed, tracker.modules)):
            raise UsageError(f"--log-to {name}: its library is not installed; run pip install {tracker.packages}")


def _installed(module: str) -> bool:
    """A folder that a tracker has written may bear its name, and is no library: nothing of it would be loaded."""
    found = find_spec(module)
    return found is not None and found.origin is not None


def hand_over(names: Sequence[str], result: Result, session: SessionResult, results: Path) -> list[str]:
    """Give a session to the trackers; what went wrong in one line each: no tracker may cost a run."""
    warnings = []
    for name in names:
        folder = results / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            load(TRACKERS[name].log)(result, session, folder)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            warnings.append(f"--log-to {name}: {type(error).__name__}: {reason}; the result file has everything")
    return warnings


def title(result: Result, session: SessionResult) -> str:
    spec = result.spec
    return f"{spec['workload']}_{spec['executor']}_{Path(spec['model']).name}_{result.id}_{session.index}"


def series(session: SessionResult) -> Iterator[tuple[str, int, float]]:
    """(name, step, value): step_s in seconds; loss in nats, mean of the probes; projected_gradient of the first query; every
    evaluation as SPLIT/METRIC and SPLIT/loss."""
    steps = zip([*session.warmup_s, *session.step_s], session.losses, session.projected_gradients, strict=False)
    for step, (seconds, losses, gradients) in enumerate(steps):
        yield "step_s", step, seconds
        yield "loss", step, fmean(losses)
        yield "projected_gradient", step, gradients[0]
    for found in session.evaluations:
        yield f"{found.split}/{found.metric}", found.step, found.accuracy
        yield f"{found.split}/loss", found.step, found.loss


def figures(session: SessionResult) -> dict[str, float]:
    """What there is one of: amortised_step_s, and seconds of a profiled step as bucket_s/BUCKET."""
    found = {"amortised_step_s": step_times(session).best_known} if session.step_s else {}
    buckets = session.findings.get("time_breakdown", {}).get("buckets", {})
    return found | {f"bucket_s/{name}": seconds for name, seconds in buckets.items()}
