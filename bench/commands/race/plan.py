"""What is run in a race: a grid of the same size for every algorithm, then seeds at what the grid has shown to be best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.config import RunSpec
from bench.defaults import complete
from bench.errors import UsageError, option
from bench.registry import WORKLOADS, executor_entry, known, workload_class
from bench.result import Result

TUNING_SEED = 1000
"""Of the grid's runs: none of the race's, whose seeds count from 0."""


@dataclass(frozen=True)
class Plan:
    """bases: one specification for each workload; rates: multiples of its own learning rate; sizes: of eps; tuning_steps: None
    for those of the race."""

    bases: tuple[RunSpec, ...]
    rates: tuple[float, ...]
    sizes: tuple[float, ...]
    seeds: int
    tuning_steps: int | None = None

    def grid(self, base: RunSpec) -> list[RunSpec]:
        """Runs that look at the dev split once, at their end."""
        steps = base.steps if self.tuning_steps is None else max(1, self.tuning_steps - base.warmup)
        points = [(float(f"{base.learning_rate * rate:.3g}"), eps) for rate in self.rates for eps in self.sizes]
        common = replace(base, seed=TUNING_SEED, steps=steps, tuning=True, eval_every=base.warmup + steps)
        return [replace(common, learning_rate=rate, eps=eps) for rate, eps in points]

    def heats(self, base: RunSpec, rate: float, eps: float) -> list[RunSpec]:
        return [replace(base, learning_rate=rate, eps=eps, seed=seed) for seed in range(self.seeds)]


def plan(given: dict[str, Any], workloads: Sequence[str], rates: str, sizes: str, seeds: int, tuning_steps: int | None) -> Plan:
    """UsageError for the first thing that cannot be run, before anything is."""
    if given.get("until") is None:
        raise UsageError("race: --until says where the race ends, as in --until accuracy=0.9")
    if seeds < 2:
        raise UsageError(f"--seeds {seeds}: one seed says nothing about another; give 5 or more")
    if tuning_steps is not None and tuning_steps < 1:
        raise UsageError(f"--tuning-steps {tuning_steps}: must be a whole number of at least 1")
    names = list(dict.fromkeys(known(WORKLOADS, "--workload", name) for name in workloads)) or _all_of(given)
    if len(names) < 2:
        raise UsageError(f"--workload {names[0]}: a race needs two or more; repeat --workload")
    bases = tuple(complete(given | {"workload": name}) for name in names)
    made = Plan(bases, numbers("lr_grid", rates), numbers("eps_grid", sizes), seeds, tuning_steps)
    for base in bases:
        made.grid(base)  # a rate too high for the decay is said now
    return made


def _all_of(given: dict[str, Any]) -> list[str]:
    """The suite's own algorithms that the executor runs; running means count."""
    c = executor_entry(given["executor"]).capabilities
    kinds = {name: workload_class(name) for name in WORKLOADS.own}
    return [name for name, kind in kinds.items() if kind.kind in c.scopes and (c.means or not kind.keeps)]


def numbers(name: str, text: str) -> tuple[float, ...]:
    """`0.3,1,3` as numbers above 0."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(math.isfinite(value) and value > 0 for value in found):
        raise UsageError(f"{option(name)} {text}: must be numbers above 0 with commas between them, such as 0.3,1,3")
    return tuple(dict.fromkeys(found))


def best(results: Sequence[Result]) -> Result | None:
    """The run of a grid with the lowest dev loss at its end; None where all broke."""
    usable = [result for result in results if result.status == "passed"]
    return min(usable, key=lambda result: [e.loss for e in result.sessions[0].evaluations if e.split == "dev"][-1], default=None)
