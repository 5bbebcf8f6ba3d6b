"""One tidy long table that every figure is drawn from: a row is one value of one metric of one session (or block)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

import pandas as pd

from analysis.runs import Run
from analysis.serving import FINDING, tail
from bench.result import SessionResult
from bench.steptimes import step_times

COLUMNS = (
    "file",
    "workload",
    "executor",
    "model",
    "batch_size",
    "rank",
    "point",
    "features",
    "admission",
    "users_per_s",
    "unit",
    "session",
    "metric",
    "key",
    "value",
    "value_unit",
)


def tidy(runs: Iterable[Run]) -> pd.DataFrame:
    """Metrics: of a server's runs ttft_p99_s and train_steps_per_s alone; of others step_s (amortised), step_s_median; loss,
    accuracy (key: step); bucket_s (key: bucket or idle), launches, memory_bytes (key: part); roofline_flops, roofline_bytes,
    roofline_floor_s. rank is missing where directions have none."""
    rows = [
        {**_who(run), "session": session.index, "metric": metric, "key": str(key), "value": float(value), "value_unit": unit}
        for run in runs
        for session in (run.sessions if not run.served else run.served)
        for metric, key, value, unit in _metrics(session)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"rank": "Int64"})


def _who(run: Run) -> dict[str, Any]:
    spec = run.spec
    return {
        "file": run.path.name,
        "workload": spec["workload"],
        "executor": spec["executor"],
        "model": spec["model"],
        "batch_size": spec["batch_size"],
        "rank": run.rank,
        "point": run.label,
        "features": ", ".join(run.features),
        "admission": run.admission,
        "users_per_s": run.spec.get("users_per_s", 0.0),
        "unit": run.unit,
    }


def _metrics(session: SessionResult) -> Iterator[tuple[str, object, float, str]]:
    found = session.findings
    if served := found.get(FINDING):
        yield "ttft_p99_s", "", tail(served["ttft_s"]), "s"
        yield "train_steps_per_s", "", served["steps"] / served["train_s"], "1/s"
        return
    yield "step_s", "", step_times(session).best_known, "s"
    yield "step_s_median", "", median(session.step_s), "s"
    for step, losses in enumerate(session.losses):
        yield "loss", step, sum(losses) / len(losses), "nats"
    for evaluation in session.evaluations:
        yield "accuracy", evaluation.step, evaluation.accuracy, "share"
    breakdown = found.get("time_breakdown", {})
    for bucket, seconds in breakdown.get("buckets", {}).items():
        yield "bucket_s", bucket, seconds, "s"
    if "idle_s" in breakdown:
        yield "bucket_s", "idle", breakdown["idle_s"], "s"
    launches = found.get("launches", {})
    count = launches.get("kernels") if launches.get("kernels") is not None else launches.get("operators")
    if count is not None:
        yield "launches", "", count, "kernels" if launches.get("kernels") is not None else "operators"
    for part, size in found.get("memory", {}).get("parts", {}).items():
        yield "memory_bytes", part, size, "B"
    roofline = found.get("roofline", {})
    if roofline:
        yield "roofline_flops", "", roofline["required"]["flops"], "FLOP"
        yield "roofline_bytes", "", roofline["required"]["bytes"], "B"
        yield "roofline_floor_s", "", roofline["required"]["floor_s"], "s"
        yield "ceiling_flops", "", roofline["ceilings"]["matmul_flop_per_s"], "FLOP/s"
        yield "ceiling_bytes", "", roofline["ceilings"]["copy_bytes_per_s"], "B/s"
