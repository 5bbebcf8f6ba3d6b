"""From a specification to the workload object it names."""

from __future__ import annotations

from bench.api import Workload
from bench.config import RunSpec
from bench.registry import WORKLOADS, resolve


def make_workload(spec: RunSpec) -> Workload:
    """The workload of a spec, with its settings; UsageError when the name is not known."""
    workload: Workload = resolve(WORKLOADS, "--workload", spec.workload)(
        learning_rate=spec.learning_rate,
        eps=spec.eps,
        rank=spec.rank,
        interval=spec.interval,
        queries=spec.queries,
        seed=spec.seed,
    )
    return workload
