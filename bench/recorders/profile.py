"""The one `torch.profiler` run of a profiled pass, shared by every recorder that reads the trace.

With vLLM in one process (its engine core and worker beside us) this profiler sees every operator and kernel.
"""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.recorders.timeline import STEP, WARMUP, Timeline, read_trace


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; nothing to do on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Profile:
    """Profiled steps of one pass: their trace, and the wall clock of each as it ran.

    wall_s     seconds of each profiled step on the wall clock, warm-up apart
    timeline   the trace, once `run` is over
    """

    timeline: Timeline

    def __init__(self, device: torch.device, trace_path: Path | None = None) -> None:
        self.device = device
        self.trace_path = trace_path
        self.wall_s: list[float] = []

    def run(self, run_step: Callable[[], object], steps: int) -> None:
        """Run one warm-up step and `steps` steps under the profiler, then read the trace (and keep it, gzipped)."""
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device.type == "cuda")
        with profile(activities=activities, profile_memory=self.device.type == "cpu", acc_events=True) as profiler:
            self._step(WARMUP, run_step)
            self.wall_s = [self._step(f"{STEP} {i}", run_step) for i in range(steps)]
        with TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            self.timeline = read_trace(json.loads(path.read_bytes()))
            if self.trace_path:
                self.trace_path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("rb") as plain, gzip.open(self.trace_path, "wb", compresslevel=5) as packed:
                    shutil.copyfileobj(plain, packed)

    def _step(self, name: str, run_step: Callable[[], object]) -> float:
        started = time.perf_counter()
        with record_function(name):
            run_step()
            synchronize(self.device)
        return time.perf_counter() - started
