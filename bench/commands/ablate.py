"""`ablate`: the factorial over one executor's features in one loaded process, with the other executors as end points.

Every point becomes a result file whose sessions are blocks; a second call goes on with the rounds that are missing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.api import FACTORED
from bench.config import RunSpec
from bench.defaults import WORKLOAD, complete
from bench.errors import UsageError
from bench.harness.blocks import BlocksJob
from bench.harness.points import Planned, finished, measure, points_of
from bench.journal.store import Store
from bench.registry import WORKLOADS, executor_entry, known, workload_class
from bench.terminal import stderr_console

QUICK = {"rounds": 3, "steps": 2}
LADDER = ("vllm", "eager", "official")
"""The executors whose points the attribution leads through, last to first; the engine is loaded first, while memory is free."""
OFF: dict[str, Any] = {"batching": "sequential", "kv": "recompute", "lora": "unfused"}


def ablate(
    given: dict[str, Any], *, executor: str, rounds: int, steps: int, profile: bool, quick: bool, results: str, timeout_s: float
) -> int:
    """Run what is missing, then print the attribution. Returns the exit code."""
    switchable = [name for name in LADDER if len(executor_entry(name).capabilities.lora) > 1]
    if executor not in switchable:
        raise UsageError(f"--executor {executor}: has no features to switch; choose {' or '.join(switchable)}")
    name = known(WORKLOADS, "--workload", given.get("workload") or WORKLOAD)
    if workload_class(name).kind not in FACTORED:
        fitting = [other for other in WORKLOADS.own if workload_class(other).kind in FACTORED]
        raise UsageError(f"--workload {name}: dense noise has one form only; choose {' or '.join(fitting)}")
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
    """What is loaded (vllm first: it wants the device's memory counted before the others take theirs), and the points on it.

    On a GPU the engine's runtime is a fourth factor: passes launched kernel by kernel, or recorded whole; neither is compiled.
    """
    loads = []
    for name in LADDER:
        entry = executor_entry(name)
        loads.append(complete(given | {"executor": name, **entry.fastest, "kv": "recompute", "directions": "shared"}))
    at = {name: number for number, name in enumerate(LADDER)}
    runtimes = ("uncompiled", "recorded") if loads[0].device == "cuda" else ("",)
    engine, plain, official = LADDER
    whole = executor == engine

    def point(name: str, variant: str = "", **features: Any) -> Planned:
        return at[name], replace(loads[at[name]], variant=variant, **features)

    both, off = ("recompute", "shared"), runtimes[0] if whole else ""
    dense = OFF | {"lora": "dense"}
    found = [
        point(executor, variant, batching=batching, kv=kv, lora=lora)
        for variant in (runtimes if whole else ("",))
        for batching in ("sequential", "paired")
        for kv in both
        for lora in ("unfused", "fused")
    ]
    found += [point(executor, off, **dense | {"kv": kv}) for kv in both]
    found += [point(official), point(plain, "every position", **dense)]
    on: list[dict[str, Any]] = [{"batching": "paired", "kv": kv, "lora": "fused"} for kv in both]
    if whole:
        found += [point(plain, **dense), point(plain, "unpadded", **dense), point(plain, "unpadded", **OFF)]
        found += [point(plain, **features) for features in on]
    else:
        found += [point(plain, "unpadded", **features) for features in on]
    found += [point(engine, loop="requests", **features) for features in on]
    if not whole or len(runtimes) > 1:
        found += [point(engine, **features) for features in on]
    return loads, found


def _show(paths: list[Path], console: Console) -> None:
    from analysis.accounting import THEIRS, accounts
    from analysis.path import paths as attribution_paths
    from analysis.path import print_path
    from analysis.readings import readings
    from analysis.runs import load_runs

    runs = load_runs(path for path in paths if path.exists())
    for path in attribution_paths(runs):
        print_path(path, console)
    said = [line for reading in readings(runs) for line in reading.lines]
    if found := accounts(runs):
        said += [*(line for account in found for line in account.lines), THEIRS]
    for line in said:
        console.print(line, soft_wrap=True)
