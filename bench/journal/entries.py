"""What the lines of a journal say: the header, then one event of a session each, checked as they are read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from bench.config import RunOptions, RunSpec
from bench.files import refuse_constant
from bench.journal.events import Event
from bench.result import Check, Evaluation, Reached, Result, Status, StepKind

Facts = dict[str, Any]


@dataclass(frozen=True)
class Header:
    """The result as it stood before the first session, and how the run was to be done."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    result: Result
    options: RunOptions

    @property
    def spec(self) -> RunSpec:
        return RunSpec.from_json(self.result.spec)


@dataclass(frozen=True)
class StepEntry:
    """A finished step: what replays it (losses, seed of the direction, V epoch, learning rate) and what it took."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}
    step: int
    step_s: float
    losses: list[float]
    projected_gradients: list[float]
    warmup: bool
    seed: int
    epoch: list[int]
    learning_rate: float
    kind: StepKind | None = None


@dataclass(frozen=True)
class ChecksumEntry:
    """Checksum of the state before a step."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    step: int
    value: str


@dataclass(frozen=True)
class SnapshotEntry:
    """A snapshot of the state before a step, beside the journal. sha256: of the file; checksum: of the state."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    step: int
    file: str
    sha256: str
    checksum: str
    kind: Literal["checkpoint", "best"]

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file:
            raise ValueError(f"file {self.file!r} is not a plain name")


@dataclass(frozen=True)
class PublishedEntry:
    """A version that readers of a server get: the state before a step, whose snapshot is in the journal, and how the dev split
    judged it (None: not asked)."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}
    version: int
    step: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class ExamplesEntry:
    """Rows that came in while a server was running, in the task's own columns; minibatches from `step` on may hold them."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    step: int
    rows: list[dict[str, Any]]


class Served(TypedDict):
    version: int


class Stage(TypedDict):
    name: str


class LoadTime(TypedDict):
    load_s: float
    fold_every: NotRequired[int | None]
    max_tokens: NotRequired[int | None]
    forwards: NotRequired[int]


class Ended(TypedDict):
    wall_s: float


class Resumed(TypedDict):
    step: int


class Warned(TypedDict):
    text: str


class Failed(TypedDict):
    status: Status
    text: str
    usage: NotRequired[bool]
    outside: NotRequired[bool]


KINDS: dict[str, Any] = {
    "step": StepEntry,
    "checksum": ChecksumEntry,
    "snapshot": SnapshotEntry,
    "published": PublishedEntry,
    "served": Served,
    "examples": ExamplesEntry,
    "check": Check,
    "evaluation": Evaluation,
    "reached": Reached,
    "stage": Stage,
    "loaded": LoadTime,
    "resumed": Resumed,
    "warning": Warned,
    "error": Failed,
    "data": Facts,
    "details": Facts,
    "findings": Facts,
    "stages": dict[str, float],
    "ended": Ended,
    "done": dict[str, None],
}


@dataclass
class History:
    """One session's part of a journal: its events, and the same by kind."""

    events: list[Event] = field(default_factory=list)
    steps: list[StepEntry] = field(default_factory=list)
    checksums: list[ChecksumEntry] = field(default_factory=list)
    snapshots: list[SnapshotEntry] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    published: list[PublishedEntry] = field(default_factory=list)
    served: int = 0
    examples: list[ExamplesEntry] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    done: bool = False

    def add(self, kind: str, entry: Any, event: Event) -> None:
        """ValueError when it does not go on from what is there."""
        if kind == "step" and entry.step != len(self.steps):
            raise ValueError(f"step {entry.step} follows step {len(self.steps) - 1}")
        if kind in ("checksum", "snapshot", "evaluation", "resumed") and _step(entry) > len(self.steps):
            raise ValueError(f"{kind} of step {_step(entry)} after {len(self.steps)} steps")
        self.events.append(event)
        match kind:
            case "step":
                self.steps.append(entry)
            case "checksum":
                self.checksums.append(entry)
            case "snapshot":
                self.snapshots.append(entry)
            case "evaluation":
                self.evaluations.append(entry)
            case "published":
                self.published.append(entry)
                self.served = entry.version
            case "served":
                self.served = entry["version"]
            case "examples":
                self.examples.append(entry)
            case "data":
                self.data |= entry
            case "done":
                self.done = True


def read_header(body: bytes) -> Header:
    """The first line; ValueError or UsageError when it is none of this suite."""
    header = _checked(Header, body)
    RunSpec.from_json(header.result.spec)
    return header


def take(sessions: dict[int, History], body: bytes) -> None:
    """Add a line to the session it belongs to; ValueError when it says nothing that may follow."""
    event = json.loads(body, parse_constant=refuse_constant)
    if not isinstance(event, dict):
        raise ValueError("an entry must be an object")
    fields = dict(event)
    index, kind = fields.pop("session", None), fields.pop("event", None)
    if not isinstance(index, int) or isinstance(index, bool) or index < 0 or not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"session {index!r}, event {kind!r} are not known")
    entry = _checked(KINDS[kind], json.dumps(fields, allow_nan=False).encode())
    del event["session"]
    sessions.setdefault(index, History()).add(kind, entry, event)


def reason(error: Exception) -> str:
    """Why a line was refused, in one line."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, found['loc'])) or 'entry'}: {found['msg'].lower()}"
    return str(error)


@lru_cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _checked(kind: Any, body: bytes) -> Any:
    return _adapter(kind).validate_json(body, strict=True)


def _step(entry: Any) -> int:
    return int(entry["step"] if isinstance(entry, dict) else entry.step)
