"""What the parts of a reproduction share: what they are given, sessions read or run within the budget, and cells of a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis.runs import Run
from analysis.statistics import ratio
from bench.config import RunOptions, RunSpec
from bench.harness.conduct import conduct, start
from bench.journal.store import Store
from bench.result import Result, read_results

MODELS = {"cuda": ("opt-1.3b", "opt-2.7b", "opt-6.7b", "opt-13b"), "cpu": ("opt-125m",)}


@dataclass(frozen=True)
class Campaign:
    """What every part is given. asked, batch_sizes: if any were named; deadline: time.monotonic() after which none is begun."""

    asked: tuple[str, ...]
    batch_sizes: tuple[int, ...]
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
        held = [result for _, result in read_results([self.store.local], lambda text: None)]  # the rest is measured again
        same = [r for r in held if r.spec == spec.to_json() and r.status == "passed" and step_s(r) is not None]
        return max((r for r in same if r.sessions[0].unit != "block"), key=lambda r: r.created, default=None)


def step_s(result: Result | None) -> float | None:
    """Amortised seconds of a core step, over the sessions or blocks that were timed."""
    run = _timed(result)
    return run.summary.amortised if run else None


def compared(name: str, slow: Result | None, fast: Result | None) -> dict[str, Any]:
    """Step time of one result over that of another, its interval and verdict, as fields of a row; empty where one is missing."""
    a, b = _timed(slow), _timed(fast)
    found = ratio(a.sample, b.sample, a.unit) if a and b else None
    facts = (found.value, found.interval, found.verdict) if found else (None, "", "")
    return dict(zip((f"ratio_{name}", f"interval_{name}", f"verdict_{name}"), facts, strict=True))


def cell(number: float | None, scale: float = 1.0) -> str:
    return "-" if number is None else f"{number * scale:.4g}"


def _timed(result: Result | None) -> Run | None:
    run = Run(Path(), result) if result else None
    return run if run and run.sessions else None
