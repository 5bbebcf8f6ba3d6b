"""`ablate`: the factorial over one executor's features in one loaded process, with the other executors as end points.

Every point becomes a result file whose sessions are blocks; all share a pair id made from the specification, so a second call
goes on with the rounds that are missing instead of repeating finished ones.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.api import UsageError
from bench.config import RunSpec
from bench.defaults import FEATURES, complete
from bench.harness.blocks import BlocksJob
from bench.harness.environment import environment, source
from bench.harness.events import Event
from bench.harness.process import run_process, stoppable
from bench.harness.store import Store, new_id, utc_now
from bench.registry import WORKLOADS, resolve
from bench.result import Check, Result, SessionResult, find_results, load_result

QUICK = {"rounds": 3, "steps": 2}
OFF: dict[str, Any] = {"batching": "sequential", "kv": "recompute", "lora": "unfused"}


@dataclass
class Point:
    """A point of the run and the result it fills."""

    load: int
    spec: RunSpec
    compiled: bool
    result: Result
    checks: list[Check] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


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
    store, console = Store(results), Console(stderr=True)
    loads, specs = _plan(given, executor)
    points = _points(loads, specs, steps, store)
    first = min(len(point.result.sessions) for point in points)
    if first < rounds:
        _measure(points, loads, BlocksJob([], [], rounds, steps, first, profile), store, console, timeout_s)
    paths = [store.path(point.result) for point in points]
    complete_run = all(len(point.result.sessions) >= rounds for point in points)
    _show(paths, console)
    status = "passed" if complete_run else "failed"
    print(
        json.dumps({"status": status, "pair_id": points[0].result.pair_id, "paths": list(map(str, paths))}, separators=(",", ":"))
    )
    return 0 if complete_run else 1


def _plan(given: dict[str, Any], executor: str) -> tuple[list[RunSpec], list[tuple[int, RunSpec, bool]]]:
    """What is loaded (vllm first: it wants the device's memory counted before the others take theirs), and the points on it."""
    names = ("vllm", "eager", "official")
    loads = []
    for name in names:
        features = {**FEATURES[name], "kv": "recompute"} | ({"directions": "shared"} if name == "official" else {})
        loads.append(complete(given | {"executor": name, **features}))
    at = dict(zip(names, range(len(names)), strict=True))
    compiles = loads[0].device == "cuda"

    def point(name: str, *, compiled: bool = False, **features: Any) -> tuple[int, RunSpec, bool]:
        return at[name], replace(loads[at[name]], **features), compiled

    both = ("recompute", "shared")
    found = [
        point(executor, batching=batching, kv=kv, lora=lora)
        for batching in ("sequential", "paired")
        for kv in both
        for lora in ("unfused", "fused")
    ]
    found += [point(executor, batching="sequential", kv=kv, lora="dense") for kv in both]
    found.append(point("official"))
    other = "vllm" if executor == "eager" else "eager"
    found += [point(other, batching="paired", kv=kv, lora="fused") for kv in both]
    if other == "eager":
        found += [point("eager", **features) for features in (OFF, OFF | {"lora": "dense"})]
    found += [point("vllm", loop="requests", batching="paired", kv=kv, lora="fused") for kv in both]
    if compiles:
        found += [point("vllm", compiled=True, batching="paired", kv=kv, lora="fused") for kv in both]
    return loads, found


def _points(loads: list[RunSpec], specs: list[tuple[int, RunSpec, bool]], steps: int, store: Store) -> list[Point]:
    """The points with what an earlier call has already measured of them."""
    key = [[spec.to_json() for spec in loads], steps, environment(loads[0].device)["device"]]
    pair_id = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    held = [load_result(path) for path in find_results([store.local])]
    points = []
    for load, spec, compiled in specs:
        variant = "" if compiled or spec.device == "cpu" or spec.executor != "vllm" else "uncompiled"
        found = next((r for r in held if r.pair_id == pair_id and r.spec == spec.to_json() and _variant(r) == variant), None)
        version = resolve(WORKLOADS, "--workload", spec.workload).version
        fresh = Result(
            new_id(), utc_now(), "passed", spec.to_json(), version, environment(spec.device), source(), pair_id=pair_id
        )
        points.append(Point(load, spec, compiled, found or fresh, details={"unit": "block", "variant": variant}))
    return points


def _variant(result: Result) -> str:
    return str(result.sessions[0].details.get("variant", "")) if result.sessions else ""


def _measure(points: list[Point], loads: list[RunSpec], job: BlocksJob, store: Store, console: Console, timeout_s: float) -> None:
    """One process for all that is missing; every point's file is written after each of its blocks."""
    whole = replace(
        job, loads=[spec.to_json() for spec in loads], points=[(p.load, p.spec.to_json(), p.compiled) for p in points]
    )

    def note(event: Event) -> None:
        if event["event"] == "data":
            for point in points:
                point.result = replace(point.result, data={k: v for k, v in event.items() if k != "event"})
        if event["event"] not in ("point", "block", "point_findings"):
            return
        point = points[event["point"]]
        if event["event"] == "point":
            point.checks = [Check(**check) for check in event["checks"]]
            point.details |= event["details"]
            console.print(f"{_name(point)}: losses checked", highlight=False)
        elif event["event"] == "block":
            session = SessionResult(
                event["round"],
                "passed",
                step_s=event["step_s"],
                losses=event["losses"],
                checks=point.checks,
                details=point.details,
            )
            if len(point.result.sessions) == session.index:
                point.result = replace(point.result, sessions=[*point.result.sessions, session])
                store.write(point.result)
                middle = sorted(session.step_s)[len(session.step_s) // 2]
                console.print(
                    f"{_name(point)}: block {session.index + 1}/{job.rounds}, {middle * 1e3:.1f} ms/step", highlight=False
                )
        elif point.result.sessions:
            last = replace(point.result.sessions[-1], findings=event["findings"])
            point.result = replace(point.result, sessions=[*point.result.sessions[:-1], last])
            store.write(point.result)

    log_path = store.local / f"ablate_{points[0].result.pair_id}.log"
    with stoppable() as stop:
        log = run_process(whole, timeout_s=timeout_s, log_path=log_path, stop=stop, on_event=note)
    if log.usage_error:
        raise UsageError(log.usage_error)
    error = log.result().error
    if error:
        console.print(f"stopped: {error}; its output is in {log_path}; the same command goes on", highlight=False, markup=False)
    else:
        log_path.unlink(missing_ok=True)


def _name(point: Point) -> str:
    spec = point.spec
    loop = f" {spec.loop}" if spec.executor == "vllm" else ""
    return f"{spec.executor}{loop} {spec.batching} {spec.kv} {spec.lora}" + (" compiled" if point.compiled else "")


def _show(paths: list[Path], console: Console) -> None:
    from analysis.path import paths as attribution_paths
    from analysis.path import print_path
    from analysis.runs import load_runs

    for found in attribution_paths(load_runs(path for path in paths if path.exists())):
        print_path(found, console)
