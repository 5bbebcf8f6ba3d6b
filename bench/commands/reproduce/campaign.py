"""What the parts of a reproduction share: what they are given, sessions read or run within the budget, and cells of a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console

from bench.config import RunOptions, RunSpec
from bench.harness.conduct import conduct, start
from bench.journal.store import Store
from bench.result import Result, find_results, load_result

MODELS = {"cuda": ("opt-1.3b", "opt-2.7b", "opt-6.7b", "opt-13b"), "cpu": ("opt-125m",)}


@dataclass(frozen=True)
class Campaign:
    """What every part is given. asked: models, if any were named; deadline: time.monotonic() at which no more work is begun."""

    asked: tuple[str, ...]
    given: dict[str, Any]
    steps: int | None
    deadline: float
    store: Store
    console: Console

    @property
    def models(self) -> tuple[str, ...]:
        return self.asked or MODELS[self.given["device"]]

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def given_for(self, model: str) -> dict[str, Any]:
        """opt-tiny is nothing without what it has learned; the others are measured with the weights asked for."""
        return self.given | {"model": model} | ({"weights": "auto"} if model == "opt-tiny" else {})

    def sessions(self, specs: Sequence[RunSpec]) -> list[Result | None]:
        """One session of each spec: those an earlier call has finished are read, the others run while the budget lasts."""
        missing = [spec for spec in specs if self._held(spec) is None]
        if missing and self.left_s > 0:
            options = RunOptions(1, max(1.0, self.left_s), True, (), False, str(self.store.local.parent))
            conduct(start(missing, options, self.store), options, self.store, self.console, quiet=True)
        return [self._held(spec) for spec in specs]

    def _held(self, spec: RunSpec) -> Result | None:
        """The newest finished result of a spec."""
        held = [load_result(path) for path in find_results([self.store.local])]
        same = [r for r in held if r.spec == spec.to_json() and r.status == "passed" and median_s(r) is not None]
        return max((r for r in same if r.sessions[0].unit != "block"), key=lambda r: r.created, default=None)


def median_s(result: Result | None) -> float | None:
    """Median over sessions (or blocks) of the median step seconds."""
    values = [median(s.step_s) for s in result.sessions if s.step_s] if result else []
    return median(values) if values else None


def over(slow: float | None, fast: float | None) -> float | None:
    return slow / fast if slow and fast else None


def cell(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:.4g}"
