"""Names to what they stand for. Nothing is imported until it is used, so listing costs nothing.

A workload is a class (bench.api.Workload), an executor an entry beside its code (bench.entry.ExecutorEntry), a task and a
recorder a class each. A package of one's own adds to a table through the entry-point group that the table names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module, metadata
from typing import Any

from bench.api import Executor, Workload
from bench.config import RunSpec
from bench.entry import ExecutorEntry
from bench.errors import UsageError


class Table(Mapping[str, str]):
    """name -> "module:attribute": the suite's own, then those that installed packages add to the entry-point group.

    A name of the suite's own cannot be taken by a package.
    """

    def __init__(self, group: str, own: Mapping[str, str]) -> None:
        self.group, self.own = group, own

    def __getitem__(self, name: str) -> str:
        return self.own[name] if name in self.own else self._outside[name].value

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self._outside

    def __len__(self) -> int:
        return len(self.own) + len(self._outside)

    def origin(self, name: str) -> str:
        """The package that adds a name, with its version; "" for the suite's own."""
        found = None if name in self.own else self._outside[name].dist
        return f"{found.name} {found.version}" if found else ""

    @cached_property
    def _outside(self) -> dict[str, metadata.EntryPoint]:
        return {point.name: point for point in metadata.entry_points(group=self.group) if point.name not in self.own}


WORKLOADS = Table(
    "zo_bench.workloads",
    {
        "lozo": "workloads.lozo:LoZO",
        "mezo": "workloads.mezo:MeZO",
        "factorized": "workloads.factorized:Factorized",
        "one-sided": "workloads.one_sided:OneSided",
        "fzoo": "workloads.fzoo:FZOO",
        "eggroll": "workloads.eggroll:Eggroll",
        "zo-sign": "workloads.zo_sign:ZOSign",
        "three-points": "workloads.three_points:ThreePoints",
        "conservative": "workloads.conservative:Conservative",
        "lozo-m": "workloads.lozo_m:LoZOM",
        "mezo-m": "workloads.mezo_m:MeZOM",
        "zo-adam": "workloads.zo_adam:ZOAdam",
    },
)
EXECUTORS = Table(
    "zo_bench.executors",
    {
        "official": "baselines.official.entry:ENTRY",
        "eager": "baselines.eager.entry:ENTRY",
        "vllm": "bench.executors.vllm.entry:ENTRY",
        "fake": "bench.executors.fake.entry:ENTRY",
    },
)
REPLICATED = "bench.executors.replicated.executor:ReplicatedExecutor"
TASKS = Table(
    "zo_bench.tasks",
    {
        "sst2": "workloads.tasks.published.sst2:SST2",
        "rte": "workloads.tasks.published.rte:RTE",
        "cb": "workloads.tasks.published.cb:CB",
        "boolq": "workloads.tasks.published.boolq:BoolQ",
        "wsc": "workloads.tasks.published.wsc:WSC",
        "wic": "workloads.tasks.published.wic:WiC",
        "multirc": "workloads.tasks.published.multirc:MultiRC",
        "copa": "workloads.tasks.published.copa:COPA",
        "record": "workloads.tasks.published.record:ReCoRD",
        "squad": "workloads.tasks.published.squad:SQuAD",
        "drop": "workloads.tasks.published.drop:DROP",
        "own": "workloads.tasks.own:Own",
        "tiny-choice": "workloads.tasks.tiny.choice:TinyChoice",
        "tiny-answer": "workloads.tasks.tiny.answer:TinyAnswer",
        "tiny-sentence": "workloads.tasks.tiny.sentence:TinySentence",
    },
)
RECORDERS = Table(
    "zo_bench.recorders",
    {
        "counters": "bench.recorders.counters:Counters",
        "time_breakdown": "bench.recorders.time_breakdown:TimeBreakdown",
        "launches": "bench.recorders.launches:Launches",
        "operators": "bench.recorders.operators:Operators",
        "memory": "bench.recorders.memory:Memory",
        "energy": "bench.recorders.energy:Energy",
        "roofline": "bench.recorders.roofline:Roofline",
        "gradient_quality": "bench.recorders.gradient_quality:GradientQuality",
        "throughput": "bench.recorders.throughput:Throughput",
    },
)


def known(table: Mapping[str, str], option: str, name: str) -> str:
    """The name itself if the table has it; else a UsageError that lists the valid ones."""
    if name not in table:
        raise UsageError(f"{option} {name}: not known; choose one of {', '.join(table)}")
    return name


def resolve(table: Table, option: str, name: str) -> Any:
    """Import and return what a name stands for. UsageError when a package of somebody else's breaks while it is imported."""
    target = table[known(table, option, name)]
    if name in table.own:
        return load(target)
    try:
        return load(target)
    except Exception as error:  # whatever their module raises: it costs this name alone
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{option} {name}: {table.origin(name)} cannot be imported ({reason}); mend or remove it") from None


def load(target: str) -> Any:
    """The object of a "module:attribute" string."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def workload_class(name: str) -> type[Workload]:
    found: type[Workload] = resolve(WORKLOADS, "--workload", name)
    return found


def make_workload(spec: RunSpec) -> Workload:
    """The workload of a spec, with its settings; UsageError when the name is not known."""
    return workload_class(spec.workload).from_spec(spec)


def executor_entry(name: str) -> ExecutorEntry:
    found: ExecutorEntry = resolve(EXECUTORS, "--executor", name)
    return found


def make_executor(name: str, *, replicated: bool = False) -> Executor:
    """A new executor, not yet loaded; `replicated`: copies of it behind the same contract."""
    executor: Executor = load(REPLICATED if replicated else executor_entry(name).target)()
    return executor


def check(spec: RunSpec) -> None:
    """UsageError for the first thing in a spec that its executor or its workload cannot honour."""
    executor_entry(spec.executor).capabilities.check(spec, workload_class(spec.workload))
    make_workload(spec)
