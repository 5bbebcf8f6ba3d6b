"""The control of every claim that something is learned: LoZO or MeZO whose steps go forwards or backwards by the toss of a coin.

Same directions, same lengths of the steps, no information. `pip install ./tests/control` makes it `--workload coin-toss`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workloads.lozo import LoZO
from workloads.method import Method
from workloads.mezo import MeZO

if TYPE_CHECKING:
    import torch


class Tossed(Method):
    """Beside a method: what it would do, or the opposite."""

    def coefficients(self, step: int, losses: torch.Tensor) -> torch.Tensor:
        import torch

        toss = torch.rand((), generator=torch.Generator().manual_seed(10_000 * self.seed + step))
        return super().coefficients(step, losses) * (1.0 if toss < 0.5 else -1.0)


@dataclass(frozen=True)
class CoinToss(Tossed, LoZO):
    name: ClassVar[str] = "coin-toss"
    version: ClassVar[int] = 1
    upstream: ClassVar[str | None] = None


@dataclass(frozen=True)
class DenseCoinToss(Tossed, MeZO):
    name: ClassVar[str] = "dense-coin-toss"
    version: ClassVar[int] = 1
    upstream: ClassVar[str | None] = None
