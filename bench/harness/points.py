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

from bench.config import RunSpec
from bench.environment import environment, source
from bench.errors import UsageError
from bench.harness.blocks import BlocksJob
from bench.harness.process import run_process, stoppable
from bench.harness.telling import Teller
from bench.journal.events import Event
from bench.journal.store import Store, new_id, utc_now
from bench.registry import executor_entry, workload_class
from bench.result import Check, Result, SessionResult, read_results
from bench.steptimes import step_times

Planned = tuple[int, RunSpec]


@dataclass
class Point:
    """A point of the run and the result it fills."""

    load: int
    spec: RunSpec
    result: Result
    checks: list[Check] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def blocks(self) -> int:
        """How many of its blocks were timed."""
        return sum(bool(session.step_s) for session in self.result.sessions)

    @property
    def profiled(self) -> bool:
        return any(session.findings for session in self.result.sessions)

    def take(self, event: Event, rounds: int) -> str | None:
        """Add an event of its process to the result; what there is to say of it."""
        sessions = self.result.sessions
        match event["event"]:
            case "point":
                self.checks = [Check(**check) for check in event["checks"]]
                return "losses checked"
            case "point_failed":
                facts: dict[str, Any] = {"checks": self.checks, "details": self.details, "error": event["error"]}
                failed = SessionResult(len(sessions), event["status"], "block", **facts)
                self.result = replace(self.result, status=event["status"], sessions=[*sessions, failed])
                return f"{event['status']}, {event['error']}"
            case "block" if event["round"] == len(sessions):
                self.details |= event["details"]
                details = dict(self.details)
                facts = {name: event[name] for name in ("step_s", "kinds", "fold_every", "losses")}
                facts |= {"checks": self.checks, "model_runner": details.pop("model_runner", None), "details": details}
                block = SessionResult(event["round"], "passed", "block", warnings=list(self.warnings), **facts)
                self.result = replace(self.result, sessions=[*sessions, block])
                return f"block {block.index + 1}/{rounds}, {step_times(block).best_known * 1e3:.1f} ms/step"
            case "point_warning" if event["text"] not in self.warnings:
                self.warnings.append(event["text"])
                if sessions:
                    last = replace(sessions[-1], warnings=list(self.warnings))
                    self.result = replace(self.result, sessions=[*sessions[:-1], last])
            case "point_findings" if sessions:
                last = replace(sessions[-1], findings=event["findings"])
                self.result = replace(self.result, sessions=[*sessions[:-1], last])
        return None


def points_of(loads: list[RunSpec], specs: Sequence[Planned], steps: int, store: Store) -> list[Point]:
    """The points with what an earlier call has already measured of them; those that did not work out are tried again.

    loads: the spec each executor is loaded with; specs: (index into loads, spec of the point).
    """
    key = [[spec.to_json() for spec in loads], steps, environment(loads[0].device)["device"]]
    pair_id = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    every = (result for _, result in read_results([store.local], lambda text: None))  # what cannot be read is measured again
    held = [r for r in every if r.pair_id == pair_id and r.status == "passed"]
    points = []
    for load, spec in specs:
        found = next((r for r in held if r.spec == spec.to_json()), None)
        version = workload_class(spec.workload).version
        fresh = Result(
            new_id(), utc_now(), "passed", spec.to_json(), version, environment(spec.device), source(), pair_id=pair_id
        )
        points.append(Point(load, spec, found or fresh))
    return points


def finished(points: Sequence[Point], rounds: int, profile: bool) -> bool:
    """Whether nothing is left to measure."""
    return all(point.blocks >= rounds and (point.profiled or not profile) for point in points)


def measure(points: list[Point], loads: list[RunSpec], job: BlocksJob, store: Store, console: Console, timeout_s: float) -> None:
    """One process for all that is missing; every point's file is written after each of its blocks.

    job: rounds, steps and whether to profile; the rest is filled in here.
    """
    whole = replace(
        job,
        loads=[spec.to_json() for spec in loads],
        points=[(p.load, p.spec.to_json()) for p in points],
        done=[point.blocks for point in points],
    )

    tell = Teller(console)

    def note(event: Event) -> None:
        tell(event.get("executor", ""), event)
        if event["event"] == "data":
            for point in points:
                point.result = replace(point.result, data={k: v for k, v in event.items() if k != "event"})
        if "point" not in event:
            return
        point = points[event["point"]]
        said = point.take(event, job.rounds)
        if event["event"] == "point_warning":
            tell.warn(point.spec.executor, event["text"])
        if point.result.sessions:
            store.write(point.result)
        if said:
            console.print(f"{name_of(point)}: {said}", soft_wrap=True)

    log_path = store.local / f"ablate_{points[0].result.pair_id}.log"
    with stoppable() as stop:
        log = run_process(whole, timeout_s=timeout_s, log_path=log_path, stop=stop, on_event=note)
    if log.usage_error:
        raise UsageError(log.usage_error)
    error = log.result().error
    if error:
        console.print(f"stopped: {error}; its output is in {log_path}; the same command goes on", soft_wrap=True)
    else:
        log_path.unlink(missing_ok=True)


def name_of(point: Point) -> str:
    spec = point.spec
    loop = f" {spec.loop}" if len(executor_entry(spec.executor).capabilities.loop) > 1 else ""
    return f"{spec.executor}{loop} {spec.batching} {spec.kv} {spec.lora}" + (f", {spec.variant}" if spec.variant else "")
