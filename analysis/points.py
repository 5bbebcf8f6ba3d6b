"""The points of an interleaved run (`ablate`) by their factors: three features, and on a GPU the runtime as a fourth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.attribution import Subset, subsets
from analysis.runs import Run, differences, explain, find
from bench.errors import UsageError

FEATURES = ("batching", "kv", "lora")
RUNTIME = "runtime"
OFF = {"batching": "sequential", "kv": "recompute", "lora": "unfused"}
ON = {"batching": "paired", "kv": "shared", "lora": "fused"}
DENSE = {**OFF, "lora": "dense"}
NAMES = {
    "batching": "batching",
    "kv": "KV handling: prompt and head reuse",
    "lora": "fused LoRA kernels",
    RUNTIME: "runtime: whole passes as CUDA graphs",
}
HOST_LIMITED, RECORDED = "uncompiled", "recorded"
"""Variants of vLLM on a GPU between which the runtime is switched: the same kernels, launched one by one or as one graph."""


def groups(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs by pair id, blocks alone; UsageError for a group whose times must not be attributed."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.unit == "block" and run.result.pair_id and run.sessions:
            found.setdefault(run.result.pair_id, []).append(run)
    for group in found.values():
        _refuse_mixtures(group)
    return list(found.values())


def point(group: Sequence[Run], executor: str, variant: str = "", **features: str) -> Run | None:
    """A point of one executor, on vllm resident; None where it was not measured."""
    chosen = {"loop": "resident"} if executor == "vllm" else {}
    return find(group, executor=executor, variant=variant, **features, **chosen)


def corners(group: Sequence[Run], executor: str, factors: Sequence[str], variant: str | None = None) -> dict[Subset, Run]:
    """The factorial over these factors, from all off to all on; a factor that is not among them is off, the runtime at `variant`.
    Empty where a point is missing."""
    resting = _resting(group, executor) if variant is None else variant
    found = {}
    for chosen in subsets(tuple(factors)):
        at = RECORDED if RUNTIME in chosen else HOST_LIMITED if RUNTIME in factors else resting
        run = point(group, executor, at, **{f: (ON if f in chosen else OFF)[f] for f in FEATURES})
        if run is None or (RUNTIME in factors and executor != "vllm"):
            return {}
        found[chosen] = run
    return found


def _resting(group: Sequence[Run], executor: str) -> str:
    """Where the runtime is no factor: uncompiled where vLLM compiles, so that every point runs the same model."""
    compiles = executor == "vllm" and any(run.variant == HOST_LIMITED for run in group)
    return HOST_LIMITED if compiles else ""


def _refuse_mixtures(group: list[Run]) -> None:
    for run in group:
        if run.incorrect:
            raise UsageError(f"{run.path}: its losses are wrong; timings of wrong losses are not attributed")
        found = differences(group[0], run)
        if found:
            raise UsageError(f"{run.path}: cannot stand beside {group[0].path}: they differ in {explain(found)}")
