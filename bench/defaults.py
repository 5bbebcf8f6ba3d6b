"""From what was typed to a complete specification: every option that was left out gets its value here, every name is checked.

Imports neither torch nor vllm by itself; only `device auto` and a model that must be looked up need more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.config import RunSpec
from bench.errors import UsageError
from bench.executors.replicated.cluster import check_ray
from bench.files import anchored
from bench.registry import EXECUTORS, WORKLOADS, executor_entry, known, workload_class
from bench.until import EVERY, Until
from workloads.tasks.task import TaskOptions, make_task

PLACES = ("model", "data", "upstream")
"""Fields that may name a place in the file system: it may have moved when a run is gone on with, and its digest tells."""
CLUSTER = ("replicas", "ray_address")
"""Where replicas run and how many: what they compute does not depend on it, so a run may go on with others."""
MOVABLE = (*PLACES, *CLUSTER)
WORKLOAD, EXECUTOR, MODEL, TASK = "lozo", "vllm", "opt-tiny", "sst2"
OF_A_TEMPLATE = "own"
"""The task of a --template."""
ADAPTER: Mapping[str, Any] = {"learning_rate": 5e-5, "eps": 1e-2}
"""Of --scope adapter where nothing else is said: what MeZO's repository gives for LoRA."""


def complete(given: dict[str, Any]) -> RunSpec:
    """The spec for the options given (None = not given). UsageError for the first that is unknown or cannot be honoured."""
    chosen = {name: value for name, value in given.items() if value is not None}
    workload = known(WORKLOADS, "--workload", chosen.setdefault("workload", WORKLOAD))
    executor = known(EXECUTORS, "--executor", chosen.setdefault("executor", EXECUTOR))
    task = make_task(chosen.setdefault("task", OF_A_TEMPLATE if "template" in chosen else TASK), TaskOptions.of(chosen))
    model = chosen.setdefault("model", MODEL)
    chosen.setdefault("weights", "auto")
    device = chosen["device"] = pick_device(chosen.get("device", "auto"))
    dtype = "float16" if device == "cuda" else "float32"
    entry, kind = executor_entry(executor), workload_class(workload)
    published = entry.capabilities.publishes(kind, chosen.get("queries", 1))
    values: dict[str, Any] = {"dtype": dtype, "directions": "upstream" if published else "shared", **kind.defaults}
    scope, tuned = chosen.get("scope", "lora"), dict(kind.tiny)
    if "reward" in chosen:
        from workloads.tasks.reward import find_reward

        find_reward(chosen["reward"], task.metric)
        chosen.setdefault("loop", "requests")
        tuned |= kind.tiny_with.get("reward", {})
    values |= entry.point(kind, scope, **{name: chosen[name] for name in entry.fastest if name in chosen})
    if scope == "adapter":
        values |= ADAPTER
        tuned |= kind.tiny_with.get("adapter", {})
    if model == "opt-tiny":
        values |= {**tuned, **({"evaluate": False} if chosen["weights"] == "random" else {})}
    values["objective"] = task.objective
    if "until" in chosen:
        Until.parse(chosen["until"]).check("reward" if "reward" in chosen else task.metric)
        values |= {"eval_every": EVERY, "evaluate": True}
    if "eval_every" in chosen:
        values["evaluate"] = chosen["eval_every"] > 0
    spec = RunSpec(**(values | chosen))
    if "shares" not in chosen:
        spec = replace(spec, shares=default_shares(spec))
    entry.capabilities.check(spec, kind)
    check_ray(spec)
    kind.from_spec(spec)
    if spec.data is not None and not Path(spec.data).exists():
        raise UsageError(f"--data {spec.data}: no such file or folder; give parquet, jsonl, tsv or csv files")
    if entry.check is not None:
        entry.check(spec, kind)
    return replace(_resolved(spec, own_dtype="dtype" not in chosen), **places(spec.to_json()))


def places(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of PLACES that are given, as paths that hold from any working directory; the name of a model stays one."""
    from workloads.models.table import model_folder

    found = {name: str(given[name]) for name in PLACES if given.get(name) is not None}
    return {name: str(model_folder(path) or path) if name == "model" else anchored(path) for name, path in found.items()}


def complete_all(given: dict[str, Any], executors: Sequence[str]) -> list[RunSpec]:
    """The specs of executors that run side by side; beside those that take --upstream or --quantization, others do without."""
    known = {name: executor_entry(name).capabilities for name in executors if name in EXECUTORS}
    takes = {
        "upstream": [name for name, able in known.items() if able.upstream],
        "quantization": [name for name, able in known.items() if given.get("quantization") in able.quantization],
    }

    def without(name: str) -> dict[str, None]:
        return dict.fromkeys(option for option, able in takes.items() if able and name not in able)

    return [complete(given | {"executor": name} | without(name)) for name in executors]


def default_shares(spec: RunSpec) -> int:
    """Parts of the minibatch, so that every replica has something to score."""
    copies = 1 if spec.replicas in (None, "auto") else int(str(spec.replicas))
    return min(-(-copies // spec.queries), spec.batch_size)


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


def _resolved(spec: RunSpec, own_dtype: bool) -> RunSpec:
    """`auto` weights become what was found, so that two runs compare by what they ran with.

    own_dtype    on a GPU the type becomes the checkpoint's, where that is of 16 bits
    """
    entry = executor_entry(spec.executor)
    if entry.inputs is not None:
        return replace(spec, weights="random") if spec.weights == "auto" else spec
    from workloads.models.checkpoint import saved_dtype
    from workloads.models.table import resolve_model

    source = resolve_model(spec.model, spec.weights, trust_remote_code=spec.trust_remote_code)
    if source.weights == "random" and spec.evaluate:
        raise UsageError(f"--eval-every {spec.eval_every}: the accuracy of random weights means nothing; use pretrained weights")
    if own_dtype and spec.device == "cuda" and saved_dtype(source) == "bfloat16":
        spec = replace(spec, dtype="bfloat16")
    if entry.check_model is not None:
        entry.check_model(spec, source)
    return replace(spec, weights=source.weights)
