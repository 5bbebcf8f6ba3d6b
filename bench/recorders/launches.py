"""How much is launched in a core step: what a small model pays for on a GPU, and the calls a CPU run is made of.

GPU work counts for the step that launched it.

Findings, counts per step (means over the profiled steps, whole numbers where every step does the same):
    steps                 how many steps were profiled
    kernels               kernels executed on the GPU, those of graphs included; null on a CPU
    launch_calls          kernels launched one by one by the host; null on a CPU
    graph_launches        whole graphs launched by the host; null on a CPU
    memcpys, memsets      copies and fills executed by the GPU's own engines; null on a CPU
    synchronizations      calls in which the host waits for the GPU; null on a CPU
    operators             pieces of work on the CPU: outermost operators that are neither views nor wrappers
    operator_calls        every operator call, nested ones and views too
    by_bucket             bucket -> kernels (GPU) or operators (CPU)
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, ClassVar, Literal

from bench.api import BUCKETS
from bench.recorders.activity import GRAPH_LAUNCH
from bench.recorders.base import TraceRecorder
from bench.recorders.buckets import classify, counted

PLAIN_LAUNCH = re.compile(r"^(cuda|cu)Launch(Cooperative)?Kernel")
SYNCHRONIZE = re.compile(r"^(cuda|cu)(Device|Stream|Event|Ctx)Synchronize|^cudaMemcpy(_v|$)")


class Launches(TraceRecorder):
    """Counts of kernels, launch calls, copies and operators per step (see the module for the shape)."""

    name: ClassVar[str] = "launches"
    version: ClassVar[int] = 1
    over: ClassVar[Literal["sum", "first"] | None] = "sum"

    def collect(self) -> dict[str, Any]:
        timeline = self.timeline
        steps = len(timeline.steps)
        operators = [a for a in timeline.operators if counted(a)]
        kernels = [a for a in timeline.device if a.kind == "kernel"]
        by_bucket = Counter(classify(a, self.phases) for a in (kernels if self.on_gpu else operators))
        kinds = Counter(a.kind for a in timeline.device)

        def per_step(count: int) -> float:
            return count / steps if count % steps else count // steps

        def calls(pattern: re.Pattern[str]) -> int:
            return sum(bool(pattern.match(name)) for name in timeline.calls)

        gpu = {
            "kernels": kinds["kernel"],
            "launch_calls": calls(PLAIN_LAUNCH),
            "graph_launches": calls(GRAPH_LAUNCH),
            "memcpys": kinds["memcpy"],
            "memsets": kinds["memset"],
            "synchronizations": calls(SYNCHRONIZE),
        }
        return {
            "steps": steps,
            **{key: per_step(count) if self.on_gpu else None for key, count in gpu.items()},
            "operators": per_step(len(operators)),
            "operator_calls": per_step(len(timeline.operators)),
            "by_bucket": {bucket: per_step(by_bucket[bucket]) for bucket in BUCKETS if by_bucket[bucket]},
        }
