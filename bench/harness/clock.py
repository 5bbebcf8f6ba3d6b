"""Two ways to time a step: wall clock where a step is over when it returns, CUDA events where it is only enqueued."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class WallClock:
    lag = 0

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def fetch(self, losses: torch.Tensor) -> torch.Tensor:
        return losses

    def synchronize(self) -> None:
        pass


class CudaClock:
    """Events on the current stream: reading one step's time and losses waits for that step alone, not for those behind it."""

    lag = 4

    def mark(self) -> torch.cuda.Event:
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def fetch(self, losses: torch.Tensor) -> torch.Tensor:
        import torch

        if not losses.is_cuda:
            return losses
        host = torch.empty(losses.shape, dtype=losses.dtype, pin_memory=True)
        return host.copy_(losses, non_blocking=True)

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize()
