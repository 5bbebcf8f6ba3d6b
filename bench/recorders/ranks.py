"""The profiled pass of a model that several processes share: each rank traces itself, and its findings are put together.

`over` of a recorder is the rule: "sum" adds what the ranks did, "first" takes the first rank's, which the others work in step
with. The findings of every rank stand beside it under `ranks`.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from bench.recorders.activity import STEP, WARMUP
from bench.recorders.profile import Profile
from bench.recorders.timeline import Timeline, read_trace

ALIKE = ("steps", "version")
"""Keys of findings that are no amounts."""


@runtime_checkable
class Traced(Protocol):
    """An executor whose processes trace the steps to come, each under its name, and hand over their traces in Chrome's JSON."""

    def start_tracing(self, names: Sequence[str]) -> None: ...

    def stop_tracing(self) -> list[dict[str, Any]]: ...


class RankProfile(Profile):
    """timelines: of every rank, the first one's first; timeline: the one that recorders read now."""

    timelines: list[Timeline]

    def __init__(self, device: torch.device, trace_path: Path | None, executor: Traced) -> None:
        super().__init__(device, trace_path)
        self._executor = executor

    def run(self, run_step: Callable[[], object], steps: int, plainly: AbstractContextManager[Any] | None = None) -> None:
        """One warm-up step and `steps` steps; their wall clock is the driver's, the calls of the ranks included."""
        self._executor.start_tracing([WARMUP, *(f"{STEP} {i}" for i in range(steps))])
        with plainly or nullcontext():
            run_step()
        for _ in range(steps):
            began = time.perf_counter()
            run_step()
            self.wall_s.append(time.perf_counter() - began)
        traces = self._executor.stop_tracing()
        self.timelines = [read_trace(trace) for trace in traces]
        self.timeline = self.timelines[0]
        if self.trace_path:
            self.trace_path.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(self.trace_path, "wt", compresslevel=5) as packed:
                json.dump(traces[0], packed)

    def collect(self, recorder: Any) -> dict[str, Any]:
        """A recorder's findings over all ranks, and each rank's."""
        found = []
        for timeline in self.timelines:
            self.timeline = timeline
            found.append(recorder.collect())
        self.timeline = self.timelines[0]
        return (summed(found) if recorder.over == "sum" else found[0]) | {"ranks": found}


def summed(parts: Sequence[Any]) -> Any:
    """Amounts under the same keys added up; what is no amount is the first's."""
    first = parts[0]
    if isinstance(first, Mapping):
        keys = dict.fromkeys(key for part in parts for key in part)
        return {key: first[key] if key in ALIKE else summed([part[key] for part in parts if key in part]) for key in keys}
    if isinstance(first, int | float) and not isinstance(first, bool):
        return sum(part for part in parts if part is not None)
    return first
