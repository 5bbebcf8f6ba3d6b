"""What a core step runs, by name: operators on a CPU; kernels, copies and fills on a GPU; what `analysis diff` compares.

Findings, per step (means over the profiled steps):
    steps, on     how many steps were profiled; cpu or gpu
    span_s        length of a step in the trace, as in time_breakdown
    idle_s        covered by nothing
    rows          what took the longest: [{name, bucket, seconds (each instant counted once), calls}, ...]
    rest          bucket -> seconds of everything that has no row
    operators     those whose inputs' shapes are known: [{name, seconds, calls, flops, bytes}, ...]. Seconds are their own on a
                  CPU, of the kernels they launched on a GPU; flops and bytes are what the shapes ask for at least. Inside a
                  recorded graph no operator runs, so its kernels are in `rows` alone
"""

from __future__ import annotations

from typing import Any, ClassVar

from bench.recorders.base import TraceRecorder
from bench.recorders.work import listed


class Operators(TraceRecorder):
    """Work by name with what its shapes ask for (see the module for the shape)."""

    name: ClassVar[str] = "operators"
    version: ClassVar[int] = 1

    def collect(self) -> dict[str, Any]:
        return listed(self.timeline, self.phases, self.on_gpu)
