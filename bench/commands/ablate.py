"""`ablate`: the factorial over one executor's features in one loaded process, with the other executors as end points.

Every point becomes a result file whose sessions are blocks; a second call goes on with the rounds that are missing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.commands.terminal import stderr_console
from bench.config import RunSpec
from bench.defaults import FEATURES, complete
from bench.errors import UsageError
from bench.harness.blocks import BlocksJob
from bench.harness.points import Planned, finished, measure, points_of
from bench.journal.store import Store

QUICK = {"rounds": 3, "steps": 2}
OFF: dict[str, Any] = {"batching": "sequential", "kv": "recompute", "lora": "unfused"}


def ablate(
    given: dict[str, Any], *, executor: str, rounds: int, steps: int, profile: bool, quick: bool, results: str, timeout_s: float
) -> int:
    """Run what is missing, then print the attribution. Returns the exit code."""
    if executor not in ("eager", "vllm"):
        raise UsageError(f"--executor {executor}: has no features to switch; choose eager or vllm")
    if given.get("workload") == "mezo":
        raise UsageError("--workload mezo: dense noise has one form only; choose lozo or factorized")
    if quick:
        rounds, steps, profile = QUICK["rounds"], QUICK["steps"], False
    store, console = Store(results), stderr_console()
    loads, specs = _plan(given, executor)
    points = points_of(loads, specs, steps, store)
    if not finished(points, rounds, profile):
        measure(points, loads, BlocksJob([], [], rounds, steps, profile=profile), store, console, timeout_s)
    paths = [store.path(point.result) for point in points]
    done = finished(points, rounds, profile)
    _show(paths, console)
    last = {"status": "passed" if done else "failed", "pair_id": points[0].result.pair_id, "paths": list(map(str, paths))}
    print(json.dumps(last, separators=(",", ":")))
    return 0 if done else 1


def _plan(given: dict[str, Any], executor: str) -> tuple[list[RunSpec], list[Planned]]:
    """What is loaded (vllm first: it wants the device's memory counted before the others take theirs), and the points on it."""
    names = ("vllm", "eager", "official")
    loads = []
    for name in names:
        features = {**FEATURES[name], "kv": "recompute"} | ({"directions": "shared"} if name == "official" else {})
        loads.append(complete(given | {"executor": name, **features}))
    at = dict(zip(names, range(len(names)), strict=True))
    uncompiled = "uncompiled" if loads[0].device == "cuda" else ""

    def point(name: str, variant: str = "", **features: Any) -> Planned:
        if name == "vllm" and features.get("loop") != "requests":
            variant = variant or uncompiled
        return at[name], replace(loads[at[name]], **features), variant

    both = ("recompute", "shared")
    dense = OFF | {"lora": "dense"}
    found = [
        point(executor, batching=batching, kv=kv, lora=lora)
        for batching in ("sequential", "paired")
        for kv in both
        for lora in ("unfused", "fused")
    ]
    found += [point(executor, **dense | {"kv": kv}) for kv in both]
    found += [point("official"), point("eager", "every position", **dense)]
    on: list[dict[str, Any]] = [{"batching": "paired", "kv": kv, "lora": "fused"} for kv in both]
    if executor == "vllm":
        found += [point("eager", **dense), point("eager", "unpadded", **dense), point("eager", "unpadded", **OFF)]
        found += [point("eager", **features) for features in on]
    else:
        found += [point("eager", "unpadded", **features) for features in on]
        found += [point("vllm", **features) for features in on]
    found += [point("vllm", loop="requests", **features) for features in on]
    if uncompiled:
        compiled = [(variant, features) for variant in ("no graphs", "") for features in on]
        found += [(at["vllm"], replace(loads[at["vllm"]], **features), variant) for variant, features in compiled]
    return loads, found


def _show(paths: list[Path], console: Console) -> None:
    from analysis.path import paths as attribution_paths
    from analysis.path import print_path
    from analysis.runs import load_runs

    for found in attribution_paths(load_runs(path for path in paths if path.exists())):
        print_path(found, console)
