"""What an executor declares of itself, beside its code and without importing it: `list`, defaults and checks read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.api import FACTORED, Kind, Workload
from bench.config import RunSpec
from bench.data import ModelSource
from bench.errors import UsageError, option

DTYPES = ("float32", "float16", "bfloat16")


def in_adapters(kind: Kind, scope: str) -> bool:
    """Whether the states of a step can be adapters: U V^T fits in one, and under scope adapter nothing else moves."""
    return scope == "adapter" or kind in FACTORED


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The values of each spec field an executor honours.

    scopes      by kind of direction; a kind that is missing is not run at all
    dtypes      by device
    max_rank    by kind; a kind that is missing has no bound. max_adapter_rank: of --scope adapter
    variants    rungs of the attribution it can be switched to (bench.api.VARIANTS)
    upstream    published repositories whose loops it has, for --directions upstream
    means       whether it moves along running means of the steps
    rewinds     whether a loaded one can be put back to its start and run with another seed, learning rate and eps
    """

    batching: tuple[str, ...] = ("sequential", "paired")
    kv: tuple[str, ...] = ("recompute", "shared")
    lora: tuple[str, ...] = ("dense", "unfused", "fused")
    loop: tuple[str, ...] = ("requests",)
    directions: tuple[str, ...] = ("shared",)
    objective: tuple[str, ...] = ("classification", "nll")
    scopes: Mapping[Kind, tuple[str, ...]]
    dtypes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"cpu": DTYPES, "cuda": DTYPES})
    max_rank: Mapping[Kind, int] = field(default_factory=dict)
    max_adapter_rank: int | None = None
    variants: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    means: bool = True
    rewinds: bool = True

    def publishes(self, workload: type[Workload], queries: int) -> bool:
        """Whether the loop of a workload is upstream's own here: upstream has one query."""
        return workload.upstream in self.upstream and queries == 1

    def check(self, spec: RunSpec, workload: type[Workload]) -> None:
        """Raise UsageError for the first field this executor cannot honour, naming what it can."""
        kind = workload.kind
        if spec.variant and spec.variant not in self.variants:
            raise UsageError(f"variant {spec.variant}: --executor {spec.executor} has {', '.join(self.variants) or 'none'}")
        if spec.upstream is not None:
            self._check_upstream(spec, workload)
        for name in ("batching", "kv", "lora", "loop", "directions", "objective"):
            _one_of(spec, name, getattr(self, name))
        if kind not in self.scopes:
            kinds = ", ".join(self.scopes)
            raise UsageError(f"--executor {spec.executor}: does not run {kind} directions ({spec.workload}); it runs {kinds}")
        if workload.keeps and not self.means:
            raise UsageError(f"--executor {spec.executor}: keeps no running means ({spec.workload} does); use --executor eager")
        _one_of(spec, "scope", self.scopes[kind], f" with {spec.workload}")
        _one_of(spec, "dtype", self.dtypes[spec.device], f" on {spec.device}")
        most = self.max_rank.get(kind, spec.rank)
        if spec.rank > most:
            raise UsageError(f"--rank {spec.rank}: --executor {spec.executor} holds at most rank {most} of {spec.workload}")
        if not in_adapters(kind, spec.scope) and spec.lora != "dense":
            raise UsageError(f"--lora {spec.lora}: the dense noise of {spec.workload} fits in no adapter; use --lora dense")
        if spec.scope == "adapter":
            self._check_adapter(spec)
        if spec.directions == "upstream" and not self.publishes(workload, spec.queries):
            raise UsageError(f"--directions upstream: {self._published}; use --directions shared")
        if spec.directions == "upstream" and (spec.lr_schedule, spec.lr_warmup, spec.weight_decay) != ("constant", 0, 0):
            constant = "upstream's loops have a constant learning rate and no weight decay here"
            raise UsageError(f"--directions upstream: {constant}; use --directions shared")
        if spec.lora == "dense" and spec.batching == "paired":
            raise UsageError("--lora dense --batching paired: dense weights hold one state at a time; use --batching sequential")

    def _check_adapter(self, spec: RunSpec) -> None:
        if spec.lora == "dense":
            raise UsageError("--lora dense: --scope adapter leaves the weights alone; use --lora fused or unfused")
        if self.max_adapter_rank is not None and spec.adapter_rank > self.max_adapter_rank:
            raise UsageError(
                f"--adapter-rank {spec.adapter_rank}: --executor {spec.executor} holds at most rank {self.max_adapter_rank}"
            )

    def _check_upstream(self, spec: RunSpec, workload: type[Workload]) -> None:
        given = f"--upstream {spec.upstream}"
        if "upstream" not in self.directions:
            raise UsageError(f"{given}: --executor {spec.executor} runs no code of upstream's; use --executor official")
        if not self.publishes(workload, spec.queries):
            raise UsageError(f"{given}: {self._published}; leave --upstream out")
        if spec.directions != "upstream":
            raise UsageError(f"{given}: it draws from its own random stream; use --directions upstream")

    @property
    def _published(self) -> str:
        return f"upstream has the loops of {' and '.join(self.upstream)} with one query"


@dataclass(frozen=True, kw_only=True)
class ExecutorEntry:
    """One executor of the registry.

    target      "module:Class" of the executor; imported when it is needed
    fastest     batching, kv, lora and loop of its fastest point: the defaults
    inputs      "module:function" (spec, session index) -> Inputs, where it needs no model and brings its own
    check       its own checks of the paths a spec names, before anything is loaded
    check_model its own checks of the model's configuration, before anything is loaded
    families    lines for `list --verbose` on families of models that it does not run, or not whole
    same_state  an executor whose parameters move the same and that loads faster: `export` redoes runs with it
    """

    target: str
    capabilities: Capabilities
    fastest: Mapping[str, str]
    inputs: str | None = None
    check: Callable[[RunSpec, type[Workload]], None] | None = None
    check_model: Callable[[RunSpec, ModelSource], None] | None = None
    families: Callable[[], Iterable[str]] | None = None
    same_state: str | None = None

    def point(self, workload: type[Workload], scope: str = "lora", **chosen: Any) -> dict[str, Any]:
        """Values of the features for a workload, `chosen` first: dense noise fits in no adapter, dense weights hold one state."""
        fitting = {} if in_adapters(workload.kind, scope) else {"lora": "dense"}
        features: dict[str, Any] = {**self.fastest, **fitting, **chosen}
        if features["lora"] == "dense" and "batching" not in chosen:
            features["batching"] = "sequential"
        return features


def _one_of(spec: RunSpec, name: str, valid: tuple[str, ...], where: str = "") -> None:
    value = getattr(spec, name)
    if value not in valid:
        raise UsageError(f"{option(name)} {value}: --executor {spec.executor}{where} supports {', '.join(valid)}")
