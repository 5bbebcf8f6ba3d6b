"""A/A: one point against itself in fresh pairs, on this machine. How often is it called different, and do intervals hold 1?

`python tests/bench/same.py 20 --unit session` starts every session as a process of its own, both sides in turn, as `run` does;
`--unit block` starts a process a pair, in which blocks of both sides take turns, as `ablate` and `reproduce` do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import stdev

import numpy as np
from rich.console import Console

from analysis.runs import Run
from analysis.statistics import Ratio, ratio
from bench.config import RunOptions, RunSpec
from bench.defaults import complete
from bench.environment import environment
from bench.harness.blocks import BlocksJob
from bench.harness.conduct import conduct, start
from bench.harness.process import run_process, stoppable
from bench.journal.events import Event
from bench.journal.store import Store
from bench.result import SessionResult
from bench.steptimes import step_times


def by_sessions(spec: RunSpec, units: int, pairs: int, folder: Path) -> Iterator[Ratio]:
    """Each pair: two runs of one specification, sessions in turn, each a fresh process."""
    for number in range(pairs):
        store = Store(folder / str(number))
        options = RunOptions(units, profile=False, results=str(store.local.parent))
        runs = start([spec, spec], options, store)
        assert conduct(runs, options, store, Console(quiet=True), quiet=True, tables=False) == 0
        a, b = (Run(Path(str(run.path)), run.result) for run in runs)
        yield ratio(a.sample, b.sample)


def by_blocks(spec: RunSpec, units: int, steps: int, pairs: int, folder: Path) -> Iterator[Ratio]:
    """Each pair: a fresh process with one executor and the same point on it twice, blocks in turn."""
    plain = spec.to_json()
    for _ in range(pairs):
        job = BlocksJob([plain], [(0, plain), (0, plain)], units, steps, profile=False)
        found: list[dict[int, float]] = [{}, {}]

        def note(event: Event, found: list[dict[int, float]] = found) -> None:
            if event["event"] == "block":
                facts = {name: event[name] for name in ("step_s", "kinds", "fold_every")}
                block = SessionResult(event["round"], "passed", "block", **facts)
                found[event["point"]][event["round"]] = step_times(block).best_known

        with stoppable() as stop:
            log = run_process(job, timeout_s=3600, log_path=folder / "log", stop=stop, on_event=note)
        assert not log.failed, log.result().error
        yield ratio(*found, unit="block")


def summary(found: list[Ratio]) -> dict[str, object]:
    """different: called faster or slower; the ratio's truth is 1."""
    verdicts = Counter("different" if r.different else "equal" if r.equal else "undecided" for r in found)
    held = [r for r in found if r.low is not None and r.high is not None]
    return {
        "pairs": len(found),
        **{name: verdicts[name] for name in ("different", "equal", "undecided")},
        "intervals_hold_1": sum(not r.significant for r in held),
        "ratios": [round(float(q), 4) for q in np.quantile([r.value for r in found], (0, 0.25, 0.5, 0.75, 1))],
        "spread": stdev([float(np.log(r.value)) for r in found]) if len(found) > 1 else None,
    }


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("pairs", type=int)
    ask.add_argument("--unit", choices=("session", "block"), default="session")
    ask.add_argument("--units", type=int, default=5, help="sessions or blocks of each side of a pair")
    ask.add_argument("--steps", type=int, default=20)
    ask.add_argument("--executor", default="eager")
    ask.add_argument("--model", default="opt-tiny")
    asked = ask.parse_args()
    spec = complete({"executor": asked.executor, "model": asked.model, "steps": asked.steps, "eval_every": 0})
    found: list[Ratio] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        blocks = by_blocks(spec, asked.units, asked.steps, asked.pairs, folder)
        for one in blocks if asked.unit == "block" else by_sessions(spec, asked.units, asked.pairs, folder):
            found.append(one)
            print(f"{len(found)}/{asked.pairs}: {one.value:.3f}, {one.interval}, {one.verdict}", flush=True)
    facts = {"machine": environment(spec.device)["cpu"], **vars(asked), **summary(found)}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
