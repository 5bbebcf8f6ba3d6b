"""What every zeroth-order method here has: its settings, the rate of a step, and a move along what was measured.

An algorithm is an estimator (two-sided, one-sided, ...) that names its direction; it states its formula and its source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api import Direction, Kind, Probe, Update
from bench.config import RunSpec
from workloads.schedule import Schedule

if TYPE_CHECKING:
    import torch

SHORT_RUN: Mapping[str, Any] = {"eps": 1e-3, "steps": 290, "warmup": 10, "evaluate": True}
"""Of opt-tiny: 300 steps on float32 show the fine-tuning at work."""


@dataclass(frozen=True)
class Method(ABC):
    """learning_rate: at its highest; eps: size of a perturbation; weight_decay: of matrices, a step, per unit of the rate."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    version: ClassVar[int]
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    defaults: ClassVar[Mapping[str, Any]] = {}
    tiny: ClassVar[Mapping[str, Any]] = {}
    tiny_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    upstream: ClassVar[str | None] = None
    keeps: ClassVar[str] = ""
    forwards: ClassVar[str]

    learning_rate: float
    eps: float
    rank: int
    interval: int
    queries: int
    seed: int
    schedule: Schedule = field(default=Schedule(), kw_only=True)
    weight_decay: float = field(default=0.0, kw_only=True)

    @classmethod
    def from_spec(cls, spec: RunSpec) -> Self:
        """The workload with the settings of a spec; UsageError for settings that it cannot work with."""
        settings = (spec.learning_rate, spec.eps, spec.rank, spec.interval, spec.queries, spec.seed)
        return cls(*settings, schedule=Schedule.from_spec(spec), weight_decay=spec.weight_decay)

    @abstractmethod
    def direction(self, step: int, query: int) -> Direction:
        """The Z of one query of one step."""

    @abstractmethod
    def plan(self, step: int) -> tuple[Probe, ...]:
        """The parameter states to score."""

    def then(self, step: int, losses: torch.Tensor) -> tuple[Probe, ...]:
        """Nothing is scored a second time."""
        return ()

    @abstractmethod
    def projected_gradients(self, losses: torch.Tensor) -> torch.Tensor:
        """Slope of the loss along the Z of each query: losses [..., n_probes] to [..., queries], per unit of Z."""

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.learning_rate * self.schedule.share(step)

    def coefficients(self, step: int, losses: torch.Tensor) -> torch.Tensor:
        """How far the parameters move along the Z of each query [queries]: -rate / queries times its projected gradient."""
        return self.projected_gradients(losses) * (-self.rate(step) / self.queries)

    def update(self, step: int, losses: torch.Tensor) -> Update:
        """theta = (1 - rate * weight_decay) theta + sum over queries of coefficient * Z, Z the measured direction."""
        return Update(self.terms(step, self.coefficients(step, losses)), decay=self.rate(step) * self.weight_decay)

    def terms(self, step: int, values: torch.Tensor) -> tuple[tuple[Direction, torch.Tensor], ...]:
        """Each query's direction with its value [queries]."""
        return tuple((self.direction(step, query), values[query]) for query in range(self.queries))
