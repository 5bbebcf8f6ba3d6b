"""What memory holds at its fullest in a core step: the known tensors by themselves, the rest is activations and temporaries.

Findings, bytes:
    parts               weights and every copy of them, kv_pool, adapter_slots, accumulated_state, running_means (what momentum
                        and Adam keep), master (what weights in fewer bits are made from; all from the tensors),
                        activations_and_temporaries
                        (on a GPU the peak minus these and minus other executors' tensors; on a CPU the most held at once by
                        tensors made within a step)
    allocated_peak      sum of the parts: on a GPU the allocator's peak minus other executors' tensors
    beside              tensors of other executors loaded in the same process, which the two figures below include
    reserved_peak       what the GPU allocator held from the driver at most, free blocks included; null on a CPU
    nvml_process        this process as the driver counts it, CUDA context included, read before the profiler starts; null on a
                        CPU or where hidden
    host_rss_peak       most resident host memory since the process began, loading included, read before the profiler starts
"""

from __future__ import annotations

import resource
import sys
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch

from bench.nvml import open_nvml, process_bytes
from bench.recorders.base import TraceRecorder
from bench.recorders.timeline import Timeline

RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Memory(TraceRecorder):
    """Peak memory by part (see the module for the shape)."""

    name: ClassVar[str] = "memory"
    version: ClassVar[int] = 4  # 1: without beside; 2: without running_means; 3: without master

    @classmethod
    def available(cls, device: str) -> str | None:
        return None  # on a GPU the allocator answers, with or without a trace

    def __enter__(self) -> Self:
        self._rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
        self._nvml = None
        if self.on_gpu:
            with open_nvml(self.context.device) as found:
                self._nvml = process_bytes(*found) if found else None
            torch.cuda.reset_peak_memory_stats(self.context.device)
        return self

    def __exit__(self, *exc: object) -> None:
        self._peaks = self._gpu_peaks() if self.on_gpu else (None, None)

    def collect(self) -> dict[str, Any]:
        known = self.context.executor.memory_parts()
        allocated, reserved = self._peaks
        beside = self.context.beside_bytes
        rest = temporaries(self.timeline) if allocated is None else unexplained(allocated, known, beside)
        return {
            "parts": {**known, "activations_and_temporaries": rest},
            "allocated_peak": sum(known.values()) + rest,
            "beside": beside,
            "reserved_peak": reserved,
            "nvml_process": self._nvml,
            "host_rss_peak": self._rss,
        }

    def _gpu_peaks(self) -> tuple[int, int]:
        device = self.context.device
        return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


def unexplained(peak: int, known: Mapping[str, int], beside: int) -> int:
    """What the allocator held at its peak besides the known tensors and other executors'. RuntimeError if they exceed it."""
    rest = peak - beside - sum(known.values())
    if rest < 0:
        raise RuntimeError(
            f"the known tensors are {-rest} bytes more than the {peak} the allocator ever held: some lie elsewhere"
        )
    return rest


def temporaries(timeline: Timeline) -> int:
    """Most bytes that any step held beyond what it began with."""
    times = [at for at, _ in timeline.allocated]
    most = 0
    for start, end in timeline.steps:
        first, last = bisect_right(times, start), bisect_right(times, end)
        held = timeline.allocated[first - 1][1] if first else 0
        most = max(most, max((size for _, size in timeline.allocated[first:last]), default=held) - held)
    return most
