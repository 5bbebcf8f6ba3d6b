"""Two ways to time a step: wall clock where a step is over when it returns, CUDA events where it is only enqueued."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Clock(Protocol):
    """`lag`: how many steps may be in flight before the losses of the oldest are read."""

    lag: int

    def mark(self) -> Any:
        """A point in time, on the device's own timeline."""

    def seconds(self, start: Any, end: Any) -> float:
        """Time between two marks; waits until `end` has happened."""

    def fetch(self, losses: torch.Tensor) -> torch.Tensor:
        """Start copying losses to the host, without waiting. Valid once a later mark has happened."""

    def synchronize(self) -> None:
        """Wait for everything enqueued."""


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
