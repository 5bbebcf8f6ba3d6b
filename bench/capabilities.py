"""What each executor can honour. Kept apart from the executors so that `list` and the checks import no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.config import RunSpec
from bench.errors import UsageError

ADAPTER = ("lozo", "factorized")
UPSTREAM = ("lozo", "mezo")


@dataclass(frozen=True)
class Capabilities:
    """The values of each spec field an executor honours; `scopes` and `max_rank` by workload, `dtypes` by device."""

    batching: tuple[str, ...]
    kv: tuple[str, ...]
    lora: tuple[str, ...]
    loop: tuple[str, ...]
    directions: tuple[str, ...]
    scopes: Mapping[str, tuple[str, ...]]
    dtypes: Mapping[str, tuple[str, ...]]
    max_rank: dict[str, int] = field(default_factory=dict)
    variants: tuple[str, ...] = ()

    def check(self, spec: RunSpec, variant: str = "") -> None:
        """Raise UsageError for the first field this executor cannot honour, naming what it can."""
        if variant and variant not in self.variants:
            raise UsageError(f"variant {variant}: --executor {spec.executor} has {', '.join(self.variants) or 'none'}")
        if variant == "unpadded" and spec.scope != "lora":
            raise UsageError(f"variant unpadded with --scope {spec.scope}: packed rows share no norm; use --scope lora")
        if spec.upstream is not None:
            self._check_upstream(spec)
        for name in ("batching", "kv", "lora", "loop", "directions"):
            _one_of(spec, name, getattr(self, name))
        if spec.workload not in self.scopes:
            raise UsageError(f"--executor {spec.executor}: does not run {spec.workload}; it runs {', '.join(self.scopes)}")
        _one_of(spec, "scope", self.scopes[spec.workload], f" with {spec.workload}")
        _one_of(spec, "dtype", self.dtypes[spec.device], f" on {spec.device}")
        most = self.max_rank.get(spec.workload, spec.rank)
        if spec.rank > most:
            raise UsageError(f"--rank {spec.rank}: --executor {spec.executor} holds at most rank {most} of {spec.workload}")
        if spec.workload not in ADAPTER and spec.lora != "dense":
            raise UsageError(f"--lora {spec.lora}: the dense noise of {spec.workload} fits in no adapter; use --lora dense")
        if spec.directions == "upstream" and not _published(spec):
            raise UsageError(f"--directions upstream: {PUBLISHED}; use --directions shared")
        if spec.lora == "dense" and spec.batching == "paired":
            raise UsageError("--lora dense --batching paired: dense weights hold one state at a time; use --batching sequential")

    def _check_upstream(self, spec: RunSpec) -> None:
        given = f"--upstream {spec.upstream}"
        if "upstream" not in self.directions:
            raise UsageError(f"{given}: --executor {spec.executor} runs no code of upstream's; use --executor official")
        if not _published(spec):
            raise UsageError(f"{given}: {PUBLISHED}; leave --upstream out")
        if spec.directions != "upstream":
            raise UsageError(f"{given}: it draws from its own random stream; use --directions upstream")


PUBLISHED = f"upstream has {' and '.join(UPSTREAM)} with one query"


def _published(spec: RunSpec) -> bool:
    return spec.workload in UPSTREAM and spec.queries == 1


def _one_of(spec: RunSpec, name: str, valid: tuple[str, ...], where: str = "") -> None:
    value = getattr(spec, name)
    if value not in valid:
        raise UsageError(f"--{name} {value}: --executor {spec.executor}{where} supports {', '.join(valid)}")


ALL = ("float32", "float16", "bfloat16")
BOTH = {"lozo": ("lora", "full"), "mezo": ("lora", "full"), "factorized": ("lora", "full")}
ANY_DTYPE = {"cpu": ALL, "cuda": ALL}
BATCHING, KV, LORA = ("sequential", "paired"), ("recompute", "shared"), ("dense", "unfused", "fused")

CAPABILITIES = {
    "official": Capabilities(
        BATCHING[:1], KV[:1], LORA[:1], ("requests",), ("shared", "upstream"), scopes=BOTH, dtypes=ANY_DTYPE
    ),
    "eager": Capabilities(
        BATCHING,
        KV,
        LORA,
        ("requests",),
        ("shared",),
        scopes=BOTH,
        dtypes=ANY_DTYPE,
        variants=("every position", "unpadded"),
    ),
    "vllm": Capabilities(
        BATCHING,
        KV,
        LORA,
        ("requests", "resident"),
        ("shared",),
        scopes={"lozo": ("lora",), "mezo": ("lora", "full"), "factorized": ("lora",)},
        dtypes={"cpu": ALL, "cuda": ("float16", "bfloat16")},
        max_rank={"lozo": 256, "factorized": 512},
        variants=("uncompiled", "no graphs"),
    ),
    "fake": Capabilities(BATCHING, KV, LORA, ("requests", "resident"), ("shared",), scopes=BOTH, dtypes=ANY_DTYPE),
}
