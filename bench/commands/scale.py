"""`scale`: how much of a replica's speed is left when there are many, measured where they fit and modelled beyond.

One set of replicas is loaded once. Blocks of steps take turns over it: so many replicas, each with a query of its own, over a
link of so many milliseconds (every message is held up by that much). The raw seconds go into one file; the analysis does the
rest.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bench.config import RunSpec
from bench.defaults import complete
from bench.environment import environment, source
from bench.errors import UsageError
from bench.files import write_atomically
from bench.harness import gate
from bench.harness.inputs import prepare
from bench.harness.session import batches_of as batches
from bench.journal.store import Store, new_id, stem, utc_now
from bench.registry import make_executor, make_workload
from bench.terminal import stderr_console

if TYPE_CHECKING:
    from analysis.scaling import Block, Scaling
    from bench.executors.replicated.executor import ReplicatedExecutor

SETTLING = 2
"""Steps of a block before its timed ones: whoever sat out the last block catches up."""


def scale(given: dict[str, Any], *, rounds: int, steps: int, links: str, results: str) -> int:
    """links: milliseconds, as in `0,1,50`. Writes a file and a picture; returns the exit code."""
    held_up = link_seconds(links)
    if rounds < 1 or steps < 1:
        raise UsageError(f"--rounds {rounds} --steps {steps}: both must be at least 1")
    store, console = Store(results), stderr_console()
    copies = str(given.get("replicas") or len(os.sched_getaffinity(0)))
    if not copies.isdecimal():
        raise UsageError(f"--replicas {copies}: give the largest number to measure")
    spec = complete(given | {"replicas": copies, "queries": int(copies), "shares": 1})
    created, identifier = utc_now(), new_id()
    facts = {
        "kind": "scale",
        "schema_version": 1,
        "created": created,
        "spec": spec.to_json(),
        "environment": environment(spec.device),
        "source": source(),
    }
    blocks, details = measure(spec, counts(int(copies)), held_up, rounds, steps, console)
    name = stem(created, spec, identifier).replace(created, f"scale_{created}")
    path = store.local / f"{name}.json"
    write_atomically(path, json.dumps(facts | {"details": details, "blocks": [asdict(block) for block in blocks]}))
    from analysis.scaling import Scaling, draw

    found = Scaling.read(path)
    draw(found, path.with_suffix(".png"))
    show(found, console)
    console.print(f"written: {path} and {path.with_suffix('.png').name}", soft_wrap=True)
    print(json.dumps({"status": "passed", "path": str(path), **summary(found)}, separators=(",", ":")))
    return 0


def link_seconds(links: str) -> list[float]:
    try:
        found = [float(part) / 1e3 for part in links.split(",")]
    except ValueError:
        found = [-1.0]
    if min(found) < 0:
        raise UsageError(f"--links {links}: give milliseconds of a round trip, as in 0,1,50")
    return sorted({0.0, *found})


def counts(most: int) -> list[int]:
    """1, 2, 4, ... and the most."""
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


def measure(
    spec: RunSpec, numbers: list[int], links: list[float], rounds: int, steps: int, console: Console
) -> tuple[list[Block], dict[str, Any]]:
    """Load, check against the reference, then the rounds; every other round runs backwards."""
    inputs, workload = prepare(spec), make_workload(spec)
    stream = batches(spec, inputs)
    first = next(stream)
    expect = gate.expected(inputs.reference, first, workload.plan(0), spec.precision, spec.device)
    executor: Any = make_executor(spec.executor, replicated=True)
    found: list[Block] = []
    try:
        executor.load(spec, inputs.source, inputs.task)
        check, warning = gate.check(executor, expect)
        if not check.passed:
            raise UsageError(f"--executor {spec.executor}: its losses are not the reference's ({check.detail}); see `run`")
        points = [(number, link_s) for link_s in links for number in numbers]
        at = 0
        for index in range(rounds):
            for number, link_s in points if index % 2 == 0 else reversed(points):
                executor.switch(replace(spec, queries=number))
                executor.pool.limit = number
                executor.pool.each("delay", link_s)
                given = list(islice(stream, SETTLING + steps))
                found.append(_block(executor, number, link_s, index, at, given))
                at += len(given)
            console.print(f"round {index + 1} of {rounds}")
        executor.pool.limit = None
        return found, executor.details() | ({"warning": warning} if warning else {})
    finally:
        executor.close()


def _block(executor: ReplicatedExecutor, number: int, link_s: float, index: int, at: int, given: list[Any]) -> Block:
    from analysis.scaling import Block

    walls, busy, cpu = [], [], 0.0
    for step, batch in enumerate(given, start=at):
        if step == at + SETTLING:
            cpu = time.process_time()
        began = time.perf_counter()
        executor.step(executor.workload, step, batch)
        walls.append(time.perf_counter() - began)
        busy.append([list(pair) for pair in sorted(executor.pool.timings[-1].answers, key=sum, reverse=True)])
    driver_s = (time.process_time() - cpu) / (len(given) - SETTLING)
    return Block(number, link_s, index, walls[SETTLING:], busy[SETTLING:], driver_s)


def show(scaling: Scaling, console: Console) -> None:
    """What was measured beside what the parts predict, and the prediction for more."""
    from analysis.scaling import COUNTS, LINKS_MS

    parts = scaling.parts
    table = Table("replicas", "link, ms", "ms/step", "efficiency", "interval", "predicted", title="Measured")
    for point in scaling.points():
        e = point.efficiency
        numbers = (f"{point.link_s * 1e3:g}", f"{point.step_s * 1e3:.2f}", f"{e.value:.2f}", e.interval, f"{point.predicted:.2f}")
        table.add_row(str(point.replicas), *numbers)
    console.print(table)
    beyond = Table("replicas", *(f"{link:g} ms" for link in LINKS_MS), title="Predicted efficiency, by link")
    for number in COUNTS:
        beyond.add_row(str(number), *(f"{parts.efficiency(number, link / 1e3):.2f}" for link in LINKS_MS))
    console.print(beyond)


def summary(scaling: Scaling) -> dict[str, Any]:
    parts = scaling.parts
    milliseconds = {
        "apply_ms": parts.apply_s,
        "score_ms": sum(parts.items) / len(parts.items) - parts.apply_s,
        "message_ms": parts.message_s,
        "rest_ms": parts.rest_s,
    }
    points: Iterator[dict[str, Any]] = (
        {"replicas": p.replicas, "link_ms": p.link_s * 1e3, "efficiency": p.efficiency.value, "predicted": p.predicted}
        for p in scaling.points()
    )
    return {name: value * 1e3 for name, value in milliseconds.items()} | {
        "bytes_per_replica_and_step": scaling.facts["details"]["bytes_per_replica_and_step"],
        "points": list(points),
        "picture": str(Path(scaling.path).with_suffix(".png")),
    }
