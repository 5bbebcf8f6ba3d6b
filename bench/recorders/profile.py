"""The one `torch.profiler` run of a profiled pass, shared by every recorder that reads the trace.

With vLLM in one process (its engine core and worker beside us) this profiler sees every operator and kernel. As in the timed
loop nothing waits between the steps, so a GPU has the next step's work in its queue while it runs this one's.
"""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.recorders.activity import STEP, WARMUP
from bench.recorders.timeline import Timeline, read_trace
from bench.recorders.work import KEY


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; nothing to do on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Profile:
    """Profiled steps of one pass: their trace, and how long each took by a clock of its own.

    wall_s     seconds of each profiled step, warm-up apart: wall clock, on a GPU between CUDA events recorded after each step
    facts      what a kept trace says beside its events
    timeline   the trace, once `run` is over
    """

    timeline: Timeline

    def __init__(self, device: torch.device, trace_path: Path | None = None, facts: dict[str, Any] | None = None) -> None:
        self.device = device
        self.trace_path = trace_path
        self.facts = facts
        self.wall_s: list[float] = []

    def run(self, run_step: Callable[[], object], steps: int, plainly: AbstractContextManager[Any] | None = None) -> None:
        """Run one warm-up step and `steps` steps under the profiler, then read the trace (and keep it, gzipped). plainly: what
        the warm-up runs in, so that it shows each kernel of recorded passes with what launched it."""
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device.type == "cuda")
        on_cpu = self.device.type == "cpu"
        with profile(activities=activities, profile_memory=on_cpu, record_shapes=True, acc_events=True) as profiler:
            if self.trace_path and self.facts:
                profiler.add_metadata_json(KEY, json.dumps(self.facts))
            with plainly or nullcontext():
                marks = [self._step(WARMUP, run_step)]
            marks += [self._step(f"{STEP} {i}", run_step) for i in range(steps)]
            synchronize(self.device)
        self.wall_s = [self._seconds(start, end) for start, end in pairwise(marks)]
        with TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            self.timeline = read_trace(json.loads(path.read_bytes()))
            if self.trace_path:
                self.trace_path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("rb") as plain, gzip.open(self.trace_path, "wb", compresslevel=5) as packed:
                    shutil.copyfileobj(plain, packed)

    def _step(self, name: str, run_step: Callable[[], object]) -> Any:
        """The moment the step is over, on the device's own timeline."""
        with record_function(name):
            run_step()
        if self.device.type == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, start: Any, end: Any) -> float:
        return end - start if self.device.type == "cpu" else start.elapsed_time(end) / 1e3
