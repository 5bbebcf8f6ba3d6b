"""Interleaved points: blocks of several points in one process, each point a result file written after every block.

The points share a pair id made from what is run, so the same command goes on with the rounds that are missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console

from bench.api import UsageError
from bench.config import RunSpec
from bench.harness.blocks import BlocksJob
from bench.harness.environment import environment, source
from bench.harness.events import Event
from bench.harness.process import run_process, stoppable
from bench.harness.store import Store, new_id, utc_now
from bench.registry import WORKLOADS, resolve
from bench.result import Check, Result, SessionResult, find_results, load_result

Planned = tuple[int, RunSpec, str]


@dataclass
class Point:
    """A point of the run and the result it fills."""

    load: int
    spec: RunSpec
    variant: str
    result: Result
    checks: list[Check] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def points_of(loads: list[RunSpec], specs: Sequence[Planned], steps: int, store: Store) -> list[Point]:
    """The points with what an earlier call has already measured of them.

    loads: the spec each executor is loaded with; specs: (index into loads, spec of the point, its variant).
    """
    key = [[spec.to_json() for spec in loads], steps, environment(loads[0].device)["device"]]
    pair_id = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    held = [load_result(path) for path in find_results([store.local])]
    points = []
    for load, spec, variant in specs:
        found = next((r for r in held if r.pair_id == pair_id and r.spec == spec.to_json() and _variant(r) == variant), None)
        version = resolve(WORKLOADS, "--workload", spec.workload).version
        fresh = Result(
            new_id(), utc_now(), "passed", spec.to_json(), version, environment(spec.device), source(), pair_id=pair_id
        )
        points.append(Point(load, spec, variant, found or fresh, details={"unit": "block", "variant": variant}))
    return points


def _variant(result: Result) -> str:
    return str(result.sessions[0].details.get("variant", "")) if result.sessions else ""


def measure(points: list[Point], loads: list[RunSpec], job: BlocksJob, store: Store, console: Console, timeout_s: float) -> None:
    """One process for all that is missing; every point's file is written after each of its blocks."""
    whole = replace(job, loads=[spec.to_json() for spec in loads], points=[(p.load, p.spec.to_json(), p.variant) for p in points])

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
            console.print(f"{name_of(point)}: losses checked", highlight=False)
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
                    f"{name_of(point)}: block {session.index + 1}/{job.rounds}, {middle * 1e3:.1f} ms/step", highlight=False
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


def name_of(point: Point) -> str:
    spec = point.spec
    loop = f" {spec.loop}" if spec.executor == "vllm" else ""
    return f"{spec.executor}{loop} {spec.batching} {spec.kv} {spec.lora}" + (f", {point.variant}" if point.variant else "")
