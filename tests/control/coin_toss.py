"""The control of every claim that something is learned: LoZO whose steps go forwards or backwards by the toss of a coin.

Same directions, same lengths of the steps, no information. `pip install ./tests/control` makes it `--workload coin-toss`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workloads.lozo import LoZO

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CoinToss(LoZO):
    name: ClassVar[str] = "coin-toss"
    version: ClassVar[int] = 1
    upstream: ClassVar[str | None] = None

    def coefficients(self, step: int, losses: torch.Tensor) -> torch.Tensor:
        """LoZO's, or their opposite."""
        import torch

        toss = torch.rand((), generator=torch.Generator().manual_seed(10_000 * self.seed + step))
        return super().coefficients(step, losses) * (1.0 if toss < 0.5 else -1.0)
