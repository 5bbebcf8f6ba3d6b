"""The two contracts of the suite: a workload is zeroth-order maths, an executor scores parameter states.

A workload never sees an engine and an executor never sees an algorithm; they meet in probes, losses and updates.
This module imports nothing heavy, so the command line and the analysis can use its words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

from bench.data import Batch, ModelSource, TaskData
from bench.ranges import named

if TYPE_CHECKING:
    import torch

    from bench.config import RunSpec

Kind = Literal["lowrank", "dense", "factorized"]
FACTORED: tuple[Kind, ...] = ("lowrank", "factorized")
"""Kinds whose Z is U V^T for a matrix, and so fits in an adapter."""


@dataclass(frozen=True)
class Direction:
    """A reference to the random Z of one query; `workloads.directions.directions` turns it into numbers.

    kind       lowrank: U V^T, V kept for `interval` steps and shared by the queries; factorized: U V^T / sqrt(rank),
               both fresh for every step and query; dense: Gaussian
    """

    kind: Kind
    seed: int
    step: int
    query: int = 0
    rank: int = 0
    interval: int = 1

    @property
    def factored(self) -> bool:
        """Whether the Z of a matrix is U V^T, which fits in an adapter."""
        return self.kind in FACTORED

    @property
    def epoch(self) -> tuple[int, int]:
        """What V is drawn from: directions with the same epoch share V, and so can share one accumulated state."""
        return (self.step // self.interval, 0) if self.kind == "lowrank" else (self.step, self.query)

    @property
    def kept(self) -> int:
        """For how many steps V is kept."""
        return self.interval if self.kind == "lowrank" else 1


@dataclass(frozen=True)
class Probe:
    """One parameter state to score: theta + shift * Z, shift = sign * eps."""

    direction: Direction
    shift: float


@dataclass(frozen=True)
class Means:
    """How a step moves along running means: m = beta m + (1 - beta) g with g the sum of coefficient * Z over the terms, then
    theta -= rate * m. The state m belongs to the parameters.

    beta_square    v = beta_square v + (1 - beta_square) g^2, and theta -= rate * m' / (sqrt(v') + 1e-8), both without bias
    window         0: m is kept; else it is summed anew from the terms of so many steps, whose Z are drawn again
    """

    rate: float
    beta: float
    beta_square: float | None = None
    window: int = 0


@dataclass(frozen=True)
class Update:
    """theta += coefficient * Z for every term, or the move of `means`; coefficients are 0-d float32 tensors and may live on a
    device. decay: matrices are multiplied by 1 - decay first."""

    terms: tuple[tuple[Direction, torch.Tensor], ...]
    decay: float = 0.0
    means: Means | None = None


@runtime_checkable
class Workload(Protocol):
    """Pure ZO maths. Its module imports no torch at its head, so that the command line can read what the class declares.

    kind        of every direction it draws
    version     changes with the maths; results of another version never compare
    formula     of a step, in a line; L are losses, g is a projected gradient, Z a direction, q the queries
    source      where it is from
    defaults    values of spec fields that the suite's own defaults do not suit, by field name
    tiny        the same for opt-tiny, tuned so that a short run shows it; tiny_with: more for "adapter" scope and "reward" runs
    upstream    the published repository that has this very loop, or None
    forwards    probes of a step, in words: q stands for the queries
    keeps       what stays beside the weights from one step to the next, in words; empty: nothing does
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    version: ClassVar[int]
    formula: ClassVar[str]
    source: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]]
    tiny: ClassVar[Mapping[str, Any]]
    tiny_with: ClassVar[Mapping[str, Mapping[str, Any]]]
    upstream: ClassVar[str | None]
    forwards: ClassVar[str]
    keeps: ClassVar[str]

    @classmethod
    def from_spec(cls, spec: RunSpec) -> Workload:
        """The workload with the settings of a spec; UsageError for settings that it cannot work with."""

    def rate(self, step: int) -> float:
        """The learning rate of a step."""

    def plan(self, step: int) -> tuple[Probe, ...]:
        """The probe plan of a step; every step has the same number of probes, and the first one's direction is the step's."""

    def then(self, step: int, losses: torch.Tensor) -> tuple[Probe, ...]:
        """What is scored next, along the plan's directions, where it depends on the plan's losses; as many in every step."""

    def update(self, step: int, losses: torch.Tensor) -> Update:
        """The move for losses [n_probes] in the order of the plan and what came `then`. Never reads a value back to the host."""

    def projected_gradients(self, losses: torch.Tensor) -> torch.Tensor:
        """Slope of the loss along each query's Z: losses [..., n_probes] to [..., queries]."""


@dataclass(frozen=True)
class Snapshot:
    """tensors: name -> CPU copy; facts: what is no tensor, plain JSON."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


class Executor(Protocol):
    """Holds a model and scores it under nearby parameter states. Its state survives its process: it is redone from the losses
    of its steps, or restored from a snapshot, bit for bit.

    What it can honour stands in its entry (bench.entries), so that nothing has to be imported to know it.

    leaves_residue  whether scoring changes the parameters, as +eps, -2 eps, +eps in place does in floating point
    """

    name: ClassVar[str]
    leaves_residue: ClassVar[bool]

    def load(self, spec: RunSpec, source: ModelSource, task: TaskData) -> None:
        """Load the model of the spec; the task tells the longest row and whether every option is one token."""

    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        """Losses [n_probes], float32, in the order of the probes; the parameters are unchanged afterwards."""

    def apply(self, update: Update) -> None:
        """Move the parameters."""

    def step(self, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
        """A whole core step where the weights live: `workloads.steps.core_step`. Losses [n_probes], unread."""

    def switch(self, spec: RunSpec) -> None:
        """Take over the features of a spec between two steps; the parameters stay. UsageError for what cannot be switched to."""

    def evaluate(self, examples: Batch) -> torch.Tensor:
        """Mean log-prob of each answer option [n_examples, most options], float32, on the CPU, at the current state; -inf where
        an example has fewer options."""

    def generate(self, examples: Batch) -> list[tuple[int, ...]]:
        """Greedy answers at the current state: at most the task's `answer_tokens` ids each, up to the first of its `stop_ids`."""

    def infer(self, batch: Batch) -> int:
        """Inference alone: the newest step's answers again, as long, by the weights as they are; how many tokens."""

    def parameters(self) -> dict[str, torch.Tensor]:
        """The scoped parameters as they stand, accumulated state included: canonical name -> float32 CPU copy."""

    def details(self) -> dict[str, Any]:
        """Facts for the result (plain JSON): model runner, threads, fallbacks, warnings."""

    def memory_parts(self) -> dict[str, int]:
        """Bytes of the tensors held: weights with every copy of them, kv_pool, adapter_slots, accumulated_state, running_means,
        master (what weights in fewer bits are made from); from the tensors themselves."""

    def work(self, batch: Batch, probes: Sequence[Probe], *then: Sequence[Probe]) -> dict[str, int]:
        """Exact counts of a core step, its probes scored at once and then each round of `then`: forwards, rows, tokens_scored,
        tokens_real, head_rows (rows times vocabulary entries scored), weight_bytes_written (folds apart), fold_bytes_written (of
        one), adapter_bytes_written, host_syncs; tokens_read where only those take the model's last layer whole."""

    def replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        """Do again what a step did to the parameters, without a forward pass; losses [n_probes] float32 on the CPU."""

    def snapshot(self) -> Snapshot:
        """Copies of everything that `restore` needs."""

    def restore(self, snapshot: Snapshot) -> None:
        """Put the state of a snapshot back."""

    def checksum(self) -> str:
        """Of the parameters in scope and of everything beside them that later steps depend on."""

    def seed(self, step: int) -> int:
        """What the directions of a step that was done were drawn from."""

    def close(self) -> None:
        """Free everything. Safe to call twice."""


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


Reference = Callable[[Batch, Sequence[Probe], str], "torch.Tensor"]


@dataclass(frozen=True)
class Inputs:
    """`reference(batch, probes, dtype)` gives losses [n_probes] by a plain Hugging Face forward in that dtype.

    profiled    whether there is a model for the recorders to watch
    model       digest of the model's files, wherever they lie; "" where there are none
    trains      what the scope moves of the model, plain JSON
    """

    source: Any
    task: Any
    reference: Reference
    clock: Clock
    profiled: bool = True
    model: str = ""
    trains: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


class Recorder(Protocol):
    """Watches a profiled pass of steps: a context manager, then `collect()` hands over its findings (plain JSON)."""

    name: str
    version: int

    def __enter__(self) -> Recorder: ...

    def __exit__(self, *exc: object) -> None: ...

    def collect(self) -> dict[str, Any]: ...


Bucket = Literal[
    "gemm",
    "attention",
    "lora_shrink_expand",
    "weight_rewrite",
    "direction_generation",
    "state_write",
    "norm_activation",
    "kv_write",
    "head_logits",
    "sampling",
    "memcpy",
    "communication",
    "other",
]
BUCKETS: tuple[Bucket, ...] = get_args(Bucket)
"""What the work of a step is for: every operator and kernel belongs to one."""
MARK = "zo.op."
Phase = Literal["perturb", "score", "update", "fold", "host"]


def phase(name: Phase) -> AbstractContextManager[Any]:
    """Mark a phase of the step for profilers; costs about a microsecond when none is watching."""
    return named(f"zo.{name}")


def mark(bucket: Bucket) -> AbstractContextManager[Any]:
    """Say which bucket the work inside belongs to, whatever its operators are called. ValueError for an unknown one."""
    if bucket not in BUCKETS:
        raise ValueError(f"{bucket!r} is no bucket; choose one of {', '.join(BUCKETS)}")
    return named(f"{MARK}{bucket}")
