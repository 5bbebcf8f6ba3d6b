"""A workload of one's own in one file: low-rank directions, moved along by the sign of the projected gradient alone."""

from dataclasses import dataclass
from typing import ClassVar

from bench.api import Direction, Kind, Update
from workloads.two_sided import TwoSided


@dataclass(frozen=True)
class SignStep(TwoSided):
    name: ClassVar[str] = "sign-step"
    kind: ClassVar[Kind] = "lowrank"
    version: ClassVar[int] = 1

    def direction(self, step: int, query: int) -> Direction:
        return Direction(self.kind, self.seed, step, query, self.rank, self.interval)

    def update(self, step: int, losses) -> Update:
        """theta -= learning_rate * mean over queries of sign(projected gradient) * Z."""
        signs = self.projected_gradients(losses).sign() * (-self.learning_rate / self.queries)
        return Update(tuple((self.direction(step, q), signs[q]) for q in range(self.queries)))
