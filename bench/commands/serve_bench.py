"""`serve-bench`: what training costs the users of a live server, by policy, at several rates; and what the users leave to it.

Points take turns in one server (serpentine), all policies of a round meet users at the same times, and each point becomes a file
of results that is written after every round; the same call again goes on with the rounds that are missing.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.config import RunSpec
from bench.environment import environment, source
from bench.errors import UsageError
from bench.files import anchored
from bench.harness.inputs import digests, prepare
from bench.journal.file import read_journal
from bench.journal.store import Store, new_id, utc_now
from bench.nvml import utilization
from bench.registry import workload_class
from bench.result import Result, SessionResult, read_results
from bench.serving.admission import POLICIES
from bench.serving.child import Child
from bench.serving.durable import NAME
from bench.serving.load import Control, Generator, Seen, Users
from bench.serving.settings import ServeOptions
from bench.serving.site import specification
from bench.terminal import stderr_console

OFF = "off"
SHARES = (0.3, 0.6, 0.8)
IDLE_S, CAPACITY_REQUESTS, SETTLE_S = 5.0, 150, 0.5
TRIED, TRIED_S, IN_TIME = (0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1), 5.0, 0.95
"""Shares of what is answered when all come at once, from the top for so many seconds each, until this share is in time."""
DIGITS = 5


@dataclass(frozen=True)
class Plan:
    """rates: users a second, or nothing for shares of what the server can do; seconds: of one stretch of load; bound_s: to a
    first token that comes in time."""

    rates: tuple[float, ...]
    policies: tuple[str, ...]
    rounds: int
    seconds: float
    users: Users
    bound_s: float

    def __post_init__(self) -> None:
        for name in self.policies:
            if name not in (OFF, *POLICIES):
                raise UsageError(f"--policies {name}: not known; choose of {', '.join((OFF, *POLICIES))}")
        if not all(math.isfinite(rate) and rate > 0 for rate in self.rates):
            raise UsageError("--rates: users a second have to be numbers above 0, as in 4,8")
        if self.rounds < 1 or not self.seconds >= 1 or not self.bound_s > 0:
            raise UsageError("--rounds and --seconds: have to be at least 1, --in-time above 0")
        if self.users.trace and not Path(self.users.trace).is_file():
            raise UsageError(f"--trace {self.users.trace}: no such file; give JSON lines as `vllm bench serve` reads them")

    def requests(self, rate: float) -> int:
        """Of a stretch; a trace has no more than it has."""
        wanted = max(2, round(rate * self.seconds))
        if not self.users.trace:
            return wanted
        with open(self.users.trace, encoding="utf-8") as lines:
            return min(wanted, sum(1 for line in lines if line.strip()))


@dataclass
class Point:
    policy: str
    rate: float
    result: Result


def serve_bench(given: dict[str, Any], options: dict[str, Any], plan: Plan, *, results: str) -> int:
    """Measure what is missing, then print the comparison. Returns the exit code."""
    from workloads.models.tokenizer import tokenizer_folder

    ServeOptions(**options)
    spec, store, console = specification(given), Store(results), stderr_console()
    inputs = prepare(spec)
    key = [spec.to_json(), options, plan.seconds, asdict(plan.users), environment(spec.device)["device"]]
    pair_id = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    plan = replace(plan, users=replace(plan.users, tokenizer=tokenizer_folder(inputs.source)))
    held = [r for _, r in read_results([store.local], lambda _: None) if r.pair_id == pair_id and r.status == "passed"]
    rates = plan.rates or tuple(sorted({r.spec["users_per_s"] for r in held}))
    facts = digests(inputs) | {name: value for name, value in inputs.task.summary.items() if name != "warnings"}
    points = _points(plan, rates, spec, pair_id, held, facts)
    if not points or any(len(point.result.sessions) < plan.rounds for point in points):
        log = store.local / f"serve_{pair_id}.log"
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server goes with us, whoever ends us
        with tempfile.TemporaryDirectory(prefix="zo-serving-") as state:
            child = Child(given, options | {"port": 0, "state": state}, log)
            control = Control(child.url)
            try:
                bench = Bench(plan, control, Generator(child.url, plan.users, log), Path(state) / NAME, store, console)
                bench.idle = bench.idle_rate()
                console.print(f"alone it trains {bench.idle:.2f} steps/s")
                if not rates:
                    bench.capacity = bench.capacity_rate()
                    console.print(f"without training {bench.capacity:.2f} requests/s get their first token in time")
                    rates = tuple(float(f"{share * bench.capacity:.2g}") for share in SHARES)
                    points = _points(plan, rates, spec, pair_id, held, facts)
                bench.rounds(points)
            finally:
                control.close()
                child.end()
        log.unlink(missing_ok=True)
    paths = [str(store.path(point.result)) for point in points]
    _show(paths)
    print(json.dumps({"status": "passed", "pair_id": pair_id, "paths": paths}, separators=(",", ":")))
    return 0


def _points(
    plan: Plan, rates: Sequence[float], spec: RunSpec, pair_id: str, held: list[Result], data: dict[str, Any]
) -> list[Point]:
    """Every policy at every rate, with what an earlier call has measured of it."""
    points = []
    for rate in rates:
        for policy in plan.policies:
            one = replace(spec, admission=policy, users_per_s=rate)
            found = next((result for result in held if result.spec == one.to_json()), None)
            version, where = workload_class(spec.workload).version, (environment(spec.device), source())
            fresh = Result(new_id(), utc_now(), "passed", one.to_json(), version, *where, data=data, pair_id=pair_id)
            points.append(Point(policy, rate, found or fresh))
    return points


@dataclass
class Bench:
    plan: Plan
    control: Control
    generator: Generator
    journal: Path
    store: Store
    console: Console
    idle: float = 0.0
    capacity: float | None = None

    def idle_rate(self) -> float:
        """Steps a second with no user there."""
        self.control.post("start", policy="none")
        time.sleep(SETTLE_S)
        begin, before = time.perf_counter(), self.control.facts()["step"]
        time.sleep(IDLE_S)
        rate = (self.control.facts()["step"] - before) / (time.perf_counter() - begin)
        self.control.post("stop")
        return rate

    def capacity_rate(self) -> float:
        """Requests a second with which 95 % of first tokens are in time while nothing trains: the highest of some shares of
        what is answered when all come at once."""
        self.generator.run("tuned", math.inf, CAPACITY_REQUESTS // 5, 0)
        seen = self.generator.run("tuned", math.inf, CAPACITY_REQUESTS, 1)
        most = rate = len(seen.ttft_s) / seen.seconds
        for share in TRIED:
            rate = share * most
            seen = self.generator.run("tuned", rate, max(40, round(rate * TRIED_S)), 2)
            if sum(wait <= self.plan.bound_s for wait in seen.ttft_s) >= IN_TIME * seen.requests:
                break
        return rate

    def rounds(self, points: list[Point]) -> None:
        self.generator.run("tuned", points[0].rate, 20, 0)  # connections, caches, the generator's own code
        for index in range(self.plan.rounds):
            for point in points if index % 2 == 0 else reversed(points):
                if len(point.result.sessions) == index:
                    self.one(point, index)

    def one(self, point: Point, index: int) -> None:
        """A stretch of load under a policy, into the point's file."""
        plan, control = self.plan, self.control
        if point.policy == OFF:
            control.post("stop")
        else:
            control.post("start", policy=point.policy)
        time.sleep(SETTLE_S)
        counted = [control.counter(f"vllm:prefix_cache_{what}_total") for what in ("hits", "queries")]
        before, begin = control.facts(), time.perf_counter()
        with utilization() as used:
            salt = f"{point.policy} {point.rate:g} {index}"  # the prompts of a round are the same under all policies
            seen = self.generator.run("tuned", point.rate, plan.requests(point.rate), 1000 + index, salt)
        spent, after = time.perf_counter() - begin, control.facts()
        hits, queries = (control.counter(f"vllm:prefix_cache_{what}_total") for what in ("hits", "queries"))
        control.post("stop")
        entries = read_journal(self.journal).sessions[0].steps[before["step"] : after["step"]]
        steps = len(entries)
        found = users_of(seen) | {
            "policy": point.policy,
            "users_per_s": point.rate,
            "steps": steps,
            "train_s": spent,
            "bound_s": plan.bound_s,
            "idle_steps_per_s": self.idle,
            "capacity_per_s": self.capacity,
            "share_of_capacity": after["share_of_capacity"] if point.policy != OFF else 0.0,
            "publish_s": after["publish_s"],
            "stale_steps": after["stale_steps"],
            "versions": after["version"] - before["version"],
            "prefix_hits": hits - counted[0],
            "prefix_queries": queries - counted[1],
            "memory_bytes": after["memory_bytes"],
            "gpu_utilization": used.mean,
        }
        timed: dict[str, Any] = {"step_s": [e.step_s for e in entries], "losses": [e.losses for e in entries]}
        block = SessionResult(index, "passed", "block", **timed, findings={"serving": found}, wall_s=spent)
        point.result = replace(point.result, sessions=[*point.result.sessions, block])
        self.store.write(point.result)
        ordered = sorted(seen.ttft_s)
        tail = ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else math.nan
        told = f"p99 to the first token {tail * 1e3:.0f} ms, {steps / spent:.2f} steps/s, {seen.failed} failed"
        self.console.print(f"round {index + 1}, {point.rate:g}/s, {point.policy}: {told}", soft_wrap=True)


def users_of(seen: Seen) -> dict[str, Any]:
    """What users saw, one value a request; gaps between tokens are too many to keep: their quantiles."""
    import numpy as np

    def short(values: list[float]) -> list[float]:
        return [round(value, DIGITS) for value in values]

    gaps = {f"p{q}": float(np.quantile(seen.itl_s, q / 100)) if seen.itl_s else None for q in (50, 95, 99)}
    lists = {"ttft_s": short(seen.ttft_s), "tpot_s": short(seen.tpot_s), "e2e_s": short(seen.e2e_s)}
    return {"requests": seen.requests, "failed": seen.failed, "seconds": seen.seconds, **lists, "itl_s": gaps}


def plan_of(
    rates: str | None, policies: str | None, rounds: int, seconds: float, in_time: float, users: tuple[int, int, str | None]
) -> Plan:
    """From the command line: 4,8 and off,none."""
    try:
        found = tuple(float(rate) for rate in rates.split(",")) if rates else ()
    except ValueError:
        raise UsageError(f"--rates {rates}: users a second have to be numbers above 0, as in 4,8") from None
    names = tuple(policies.split(",")) if policies else (OFF, *POLICIES)
    trace = anchored(users[2]) if users[2] else None
    return Plan(found, names, rounds, seconds, Users("", users[0], users[1], trace), in_time / 1e3)


def _show(paths: Sequence[str]) -> None:
    from analysis.compare import compare
    from analysis.metrics import metric
    from analysis.runs import load_runs
    from bench.commands.compare import print_tables

    print_tables(compare(load_runs(paths), by=metric("ttft")))
