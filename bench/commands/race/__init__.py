"""`race`: several algorithms on their way to one target, each with the best settings of a grid of the same size.

The grid is judged by the dev split on a seed of its own; the held-out split is looked at in the race alone. Every run has a
journal: the same command goes on with what is missing, whatever ended it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.commands.race.plan import Plan, best, plan
from bench.commands.race.running import Runner
from bench.errors import UsageError
from bench.harness.process import stoppable
from bench.journal.store import Store
from bench.raced import gather, write_race
from bench.result import Result
from bench.terminal import stderr_console


def race(
    given: dict[str, Any],
    *,
    workloads: Sequence[str],
    seeds: int,
    rates: str,
    sizes: str,
    tuning_steps: int | None,
    timeout_s: float,
    results: str,
    command: str,
) -> int:
    """Run what is missing, write the race file and its figure, print the table. Exit code 0 when every run came to its end."""
    store, console = Store(results), stderr_console()
    if timeout_s <= 0:
        raise UsageError(f"--timeout {timeout_s}: must be a positive number of seconds")
    made = plan(given, workloads, rates, sizes, seeds, tuning_steps)
    with stoppable() as stop:
        runner = Runner(store, console, stop, timeout_s)
        found = [result for base in made.bases for result in _entrant(made, base, runner, console)]
    whole = len(made.bases) * (len(made.rates) * len(made.sizes) + seeds)
    done = len(found) == whole and all(result.status in ("passed", "diverged") for result in found)
    path = None
    if any(not result.spec["tuning"] for result in found):
        path = store.local / f"race_{_name_of(made)}.json"
        write_race(gather(found, command), path)
        _show(path, console)
    if not done:
        console.print(f"{whole - len(found)} of {whole} runs are missing; the same command goes on", soft_wrap=True)
    last = {"status": "passed" if done else "unfinished", "path": str(path) if path else None, "runs": len(found), "of": whole}
    print(json.dumps(last, separators=(",", ":")))
    return 0 if done else 1


def _entrant(made: Plan, base: Any, runner: Runner, console: Console) -> list[Result]:
    """All runs of one algorithm that there are: its grid, then its seeds at the best point of it."""
    grid = runner.results(made.grid(base))
    if None in grid:
        return [result for result in grid if result]
    tuned = [result for result in grid if result]
    chosen = best(tuned)
    if chosen is None:
        console.print(f"{base.workload}: no point of its grid could be run to the end; it does not race", soft_wrap=True)
        return tuned
    rate, eps = chosen.spec["learning_rate"], chosen.spec["eps"]
    heats = made.heats(base, rate, eps)
    console.print(f"{base.workload}: races with learning rate {rate:g} and eps {eps:g}", soft_wrap=True)
    return tuned + [result for result in runner.results(heats, record=("memory",)) if result]


def _name_of(made: Plan) -> str:
    """The same for the same command."""
    first = made.bases[0]
    text = json.dumps([*(base.to_json() for base in made.bases), made.rates, made.sizes, made.seeds, made.tuning_steps])
    return f"{first.task}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _show(path: Path, console: Console) -> None:
    from analysis.race import load, rendered
    from analysis.race_figures import draw

    found = load([path])
    for line in rendered(found):
        console.print(line, soft_wrap=isinstance(line, str))
    picture = path.with_suffix(".png")
    draw(found, picture)
    console.print(f"written: {path}, {picture}", soft_wrap=True)
