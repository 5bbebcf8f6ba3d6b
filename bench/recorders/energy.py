"""Energy of a core step from the GPU's own counter, and whether the GPU ran at full clocks.

The profiler would add its own work, so these steps run without it, and for long enough (the counter ticks about every
0.1 s). Absent without NVML.

Findings:
    steps, seconds            how many steps ran, and for how long in all
    joules_per_step           energy counter, after minus before, per step
    average_watts             the same per second
    before, after             {"sm_mhz", "memory_mhz", "temperature_c", "throttle": [reasons in force]}; null where hidden
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import Any, ClassVar, Literal, Self

from bench.nvml import conditions, missing, open_nvml
from bench.recorders.base import BaseRecorder

AT_LEAST_S = 2.0


class Energy(BaseRecorder):
    """Joules per step, power, clocks and throttling (see the module for the shape)."""

    name: ClassVar[str] = "energy"
    version: ClassVar[int] = 1
    watches: ClassVar[Literal["trace", "steps", "turns"] | None] = "steps"

    @classmethod
    def available(cls, device: str) -> str | None:
        return missing(device, energy=True)

    @property
    def steps(self) -> int:
        return max(self.context.steps, math.ceil(AT_LEAST_S / self.context.timed_step_s))

    def __enter__(self) -> Self:
        self._opened = ExitStack()
        self._nvml = self._opened.enter_context(open_nvml(self.context.device))
        self._before = self._read()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._opened:
            self._after = self._read()

    def collect(self) -> dict[str, Any]:
        (began, millijoules, before), (ended, later, after) = self._before, self._after
        joules = (later - millijoules) / 1e3
        return {
            "steps": self.steps,
            "seconds": ended - began,
            "joules_per_step": joules / self.steps,
            "average_watts": joules / (ended - began),
            "before": before,
            "after": after,
        }

    def _read(self) -> tuple[float, int, dict[str, Any]]:
        assert self._nvml is not None  # `available` was asked first
        nvml, handle = self._nvml
        found = conditions(nvml, handle)
        return time.perf_counter(), nvml.nvmlDeviceGetTotalEnergyConsumption(handle), found
