"""A rank's own trace of the steps that it runs, for a model that several processes share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function


class Tracing:
    """Runs from when it is made until `stop`. names: of the steps to come, in order."""

    def __init__(self, device: torch.device, names: Sequence[str]) -> None:
        self._device, self._names = device, iter(names)
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        self._profile = profile(activities=activities, profile_memory=device.type == "cpu", record_shapes=True, acc_events=True)
        self._profile.__enter__()

    def step(self) -> AbstractContextManager[Any]:
        """Around a step: its name in the trace."""
        return record_function(next(self._names))

    def stop(self) -> str:
        """The trace as Chrome's JSON."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._profile.__exit__(None, None, None)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self._profile.export_chrome_trace(str(path))
            return path.read_text()
