"""Names to "module:Class" strings. Nothing is imported until it is used, so listing costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from bench.api import Workload
from bench.config import RunSpec
from bench.errors import UsageError

WORKLOADS = {
    "lozo": "workloads.lozo:LoZO",
    "mezo": "workloads.mezo:MeZO",
    "factorized": "workloads.factorized:Factorized",
}
EXECUTORS = {
    "official": "baselines.official.executor:OfficialExecutor",
    "eager": "baselines.eager.executor:EagerExecutor",
    "vllm": "bench.executors.vllm.executor:VllmExecutor",
    "fake": "bench.executors.fake:FakeExecutor",
}
INPUTS = {"fake": "bench.executors.fake:inputs"}
"""Executors that bring inputs of their own."""
TASKS = {"sst2": "workloads.tasks.sst2:read"}
RECORDERS = {
    "counters": "bench.recorders.counters:Counters",
    "time_breakdown": "bench.recorders.time_breakdown:TimeBreakdown",
    "launches": "bench.recorders.launches:Launches",
    "memory": "bench.recorders.memory:Memory",
    "energy": "bench.recorders.energy:Energy",
    "roofline": "bench.recorders.roofline:Roofline",
}


def known(table: Mapping[str, str], option: str, name: str) -> str:
    """The name itself if the table has it; else a UsageError that lists the valid ones."""
    if name not in table:
        raise UsageError(f"{option} {name}: not known; choose one of {', '.join(table)}")
    return name


def resolve(table: Mapping[str, str], option: str, name: str) -> Any:
    """Import and return what a name stands for."""
    module, _, attribute = table[known(table, option, name)].partition(":")
    return getattr(import_module(module), attribute)


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
