"""The result file: raw observations of one run, never statistics. Read by `analysis` and `compare`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1
Status = Literal["passed", "incorrect", "failed", "timeout", "out_of_memory"]


@dataclass(frozen=True)
class Evaluation:
    """Held-out accuracy and loss at a step (0 = before training)."""

    step: int
    accuracy: float
    standard_error: float
    loss: float
    examples: int
    split: str = "eval"


@dataclass(frozen=True)
class Check:
    """One correctness check made before timing: the largest difference found, and what was allowed."""

    name: str
    passed: bool
    value: float
    tolerance: float
    detail: str = ""


@dataclass(frozen=True)
class SessionResult:
    """What one fresh process saw. Times in seconds, sizes in bytes.

    warmup_s, step_s   wall clock of each core step, warm-up apart
    losses             [steps][n_probes] of the warm-up and timed steps together, in plan order
    findings           recorder name -> its `collect()`, from the profiled pass
    """

    index: int
    status: Status
    load_s: float | None = None
    warmup_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    projected_gradients: list[list[float]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class Result:
    """One run: a spec, where it ran, and its sessions. `details` of a session holds executor facts (model runner, ...)."""

    id: str
    created: str
    status: Status
    spec: dict[str, Any]
    workload_version: int
    environment: dict[str, Any]
    source: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    sessions: list[SessionResult] = field(default_factory=list)
    pair_id: str | None = None
    warnings: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
