"""From what was typed to a complete specification: every option that was left out gets its value here, every name is checked.

Imports neither torch nor vllm by itself; only `device auto` and a model that must be looked up need more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bench.capabilities import CAPABILITIES, UPSTREAM
from bench.config import RunSpec
from bench.errors import UsageError
from bench.registry import EXECUTORS, TASKS, WORKLOADS, known

WORKLOAD, EXECUTOR, MODEL, TASK = "lozo", "vllm", "opt-tiny", "sst2"
FACTORIZED_RANK = 128

FEATURES = {
    "official": {"batching": "sequential", "kv": "recompute", "lora": "dense", "loop": "requests"},
    "eager": {"batching": "paired", "kv": "shared", "lora": "fused", "loop": "requests"},
    "vllm": {"batching": "paired", "kv": "shared", "lora": "fused", "loop": "resident"},
    "fake": {"batching": "paired", "kv": "shared", "lora": "fused", "loop": "requests"},
}
"""The fastest point of each executor."""


def complete(given: dict[str, Any]) -> RunSpec:
    """The spec for the options given (None = not given). UsageError for the first that is unknown or cannot be honoured."""
    chosen = {name: value for name, value in given.items() if value is not None}
    workload = known(WORKLOADS, "--workload", chosen.setdefault("workload", WORKLOAD))
    executor = known(EXECUTORS, "--executor", chosen.setdefault("executor", EXECUTOR))
    known(TASKS, "--task", chosen.setdefault("task", TASK))
    model = chosen.setdefault("model", MODEL)
    chosen.setdefault("weights", "auto")
    device = chosen["device"] = pick_device(chosen.get("device", "auto"))
    dtype = "float16" if device == "cuda" else "float32"
    values: dict[str, Any] = {"dtype": dtype, "directions": _directions(workload, executor, chosen)}
    values |= _features(workload, executor, chosen)
    if workload == "factorized":
        values["rank"] = FACTORIZED_RANK
    if model == "opt-tiny":
        values |= _tiny(workload) | ({"evaluate": False} if chosen["weights"] == "random" else {})
    if "eval_every" in chosen:
        values["evaluate"] = chosen["eval_every"] > 0
    spec = RunSpec(**(values | chosen))
    CAPABILITIES[executor].check(spec)
    _check_paths(spec)
    return _resolved(spec)


def complete_all(given: dict[str, Any], executors: Sequence[str]) -> list[RunSpec]:
    """The specs of executors that run side by side; beside `official`, which takes it, the others do without --upstream."""
    rest = {"upstream": None} if "official" in executors else {}
    return [complete(given | {"executor": name} | ({} if name == "official" else rest)) for name in executors]


def default_sessions(model: str) -> int:
    """Sessions for each executor when --sessions is not given."""
    return 1 if model == "opt-tiny" else 3


def pick_device(device: str) -> str:
    """auto: cuda where torch can compute on a GPU, else cpu."""
    if device == "cpu":
        return device
    if device not in ("auto", "cuda"):
        raise UsageError(f"--device {device}: not known; choose one of auto, cpu, cuda")
    from bench.environment import cuda_available

    available = cuda_available()
    if device == "cuda" and not available:
        raise UsageError("--device cuda: torch finds no GPU here; use --device cpu, and `python -m bench doctor` to see why")
    return "cuda" if available else "cpu"


def _directions(workload: str, executor: str, chosen: dict[str, Any]) -> str:
    """The official executor does as upstream does wherever upstream has it."""
    return "upstream" if executor == "official" and workload in UPSTREAM and chosen.get("queries", 1) == 1 else "shared"


def _features(workload: str, executor: str, chosen: dict[str, Any]) -> dict[str, str]:
    """Dense noise fits in no adapter, and dense weights hold one state at a time."""
    features = dict(FEATURES[executor])
    if workload == "mezo":
        features["lora"] = "dense"
    if chosen.get("lora", features["lora"]) == "dense":
        features["batching"] = "sequential"
    return features


def _tiny(workload: str) -> dict[str, Any]:
    from workloads.models.table import TINY_DEFAULTS

    names = {f.name for f in fields(RunSpec)}
    return {name: value for name, value in TINY_DEFAULTS.get(workload, TINY_DEFAULTS["lozo"]).items() if name in names}


def _check_paths(spec: RunSpec) -> None:
    if spec.data is not None and not Path(spec.data).exists():
        raise UsageError(f"--data {spec.data}: no such file; give a parquet, jsonl, tsv or csv file")
    if spec.upstream is not None:
        from baselines.official.checkout import ORIGINS, commit_of

        commit_of(Path(spec.upstream), ORIGINS[spec.workload])


def _resolved(spec: RunSpec) -> RunSpec:
    """`auto` weights become what was found, so that two runs compare by what they ran with."""
    if spec.executor == "fake":
        return replace(spec, weights="random") if spec.weights == "auto" else spec
    from workloads.models.table import resolve_model

    weights = resolve_model(spec.model, spec.weights, trust_remote_code=spec.trust_remote_code).weights
    if weights == "random" and spec.evaluate:
        raise UsageError(f"--eval-every {spec.eval_every}: the accuracy of random weights means nothing; use pretrained weights")
    return replace(spec, weights=weights)
