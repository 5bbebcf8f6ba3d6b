"""The journal: everything a run has seen, one line after the other, so that a run survives anything.

A zeroth-order run is its seeds and its losses; from them any state can be redone without a forward pass. Each line is JSON,
`{"sum": ..., "entry": ...}`; the checksum covers the line's number and its entry's bytes. The first line is the header, the
others are what `bench.harness.events` lists, with the session they belong to. A torn last line is dropped; any other damage is
named.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from bench.api import UsageError
from bench.config import RunOptions, RunSpec
from bench.harness.events import Event, plain
from bench.result import Check, Evaluation, Result, Status

SUFFIX = ".journal.jsonl"
SYNC_S = 5.0
PREFIX, MIDDLE, END = b'{"sum":"', b'","entry":', b"}"
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


class Stage(TypedDict):
    name: str


class Loaded(TypedDict):
    load_s: float


class Resumed(TypedDict):
    step: int


class Warned(TypedDict):
    text: str


class Failed(TypedDict):
    status: Status
    text: str
    usage: NotRequired[bool]


KINDS: dict[str, Any] = {
    "step": StepEntry,
    "checksum": ChecksumEntry,
    "snapshot": SnapshotEntry,
    "check": Check,
    "evaluation": Evaluation,
    "stage": Stage,
    "loaded": Loaded,
    "resumed": Resumed,
    "warning": Warned,
    "error": Failed,
    "data": Facts,
    "details": Facts,
    "findings": Facts,
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
    data: dict[str, Any] = field(default_factory=dict)
    done: bool = False

    def add(self, kind: str, entry: Any, event: Event) -> None:
        """UsageError when it does not go on from what is there."""
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
            case "data":
                self.data |= entry
            case "done":
                self.done = True


@dataclass(frozen=True)
class Journal:
    """A journal as read. lines, length: how much of the file is whole, in lines and bytes."""

    path: Path
    header: Header
    sessions: dict[int, History]
    lines: int
    length: int

    def done(self, session: int) -> bool:
        return session in self.sessions and self.sessions[session].done


def read_journal(path: Path | str) -> Journal:
    """Read and check a journal; UsageError names the file, the line and what is wrong with it."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give the journal or the id of a run") from None
    lines = content.split(b"\n")[:-1]
    bodies, sessions, length = [], dict[int, History](), 0
    for number, line in enumerate(lines, start=1):
        body = _body(number, line)
        if body is None and number < len(lines):
            raise UsageError(f"{path}: line {number} is corrupt; nothing after it can be trusted, restore the file or run again")
        if body is None:
            break
        bodies.append(body)
        length += len(line) + 1
    if not bodies:
        raise UsageError(f"{path}: holds no whole line; not a journal, or one of a run that had not begun")
    number = 1
    try:
        header = _checked(Header, bodies[0])
        RunSpec.from_json(header.result.spec)
        for body in bodies[1:]:
            number += 1
            _take(sessions, body)
    except (ValueError, RecursionError, UsageError) as error:
        raise UsageError(f"{path}: line {number} is not of this suite: {_first(error)}") from None
    return Journal(path, header, sessions, len(bodies), length)


def find_journals(run: str, folder: Path) -> list[Path]:
    """What a user means by the path of a journal or result, or the id of a run or pair. UsageError when there is none."""
    named = Path(run)
    if named.name.endswith(SUFFIX) and named.is_file():
        return [named]
    beside = named.parent / (named.name.removesuffix(".json") + SUFFIX)
    if named.suffix == ".json" and beside.is_file():
        return [beside]
    every = sorted(folder.rglob(f"*{SUFFIX}")) if folder.is_dir() else []
    found = [path for path in every if path.name.removesuffix(SUFFIX).endswith(f"_{run}")] if run.isalnum() else []
    found = found or [path for path in every if run.isalnum() and _pair_id(path) == run]
    if not found:
        raise UsageError(f"{run}: no run with a journal under {folder}; give its id, its journal or its result file")
    return found


class JournalWriter:
    """Appends entries; one process at a time. Each line is handed to the system at once and forced to the disk every 5 s."""

    def __init__(self, path: Path, *, new: bool = True) -> None:
        self.path, self._number, self._synced = path, 0, time.monotonic()
        with self._explained():
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT | os.O_EXCL if new else 0), 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UsageError(f"{path}: the run is still going on in another process; wait for it or end it") from None

    def read(self) -> Journal:
        """What an existing file holds; what is torn at its end goes, and the next line will follow the last whole one."""
        journal = read_journal(self.path)
        with self._explained():
            os.ftruncate(self._file, journal.length)
        self._number = journal.lines
        return journal

    def write(self, entry: dict[str, Any]) -> None:
        body = json.dumps(plain(entry), separators=(",", ":"), allow_nan=False).encode()
        self._number += 1
        line = PREFIX + _sum(self._number, body) + MIDDLE + body + END + b"\n"
        with self._explained():
            while line:
                line = line[os.write(self._file, line) :]
            if time.monotonic() - self._synced >= SYNC_S:
                os.fsync(self._file)
                self._synced = time.monotonic()

    def event(self, session: int, event: Event) -> None:
        self.write({"session": session, **event})

    def close(self) -> None:
        """Force everything to the disk. Safe to call twice."""
        if self._file >= 0:
            file, self._file = self._file, -1
            with self._explained():
                try:
                    os.fsync(file)
                finally:
                    os.close(file)

    def _explained(self) -> Any:
        return _Explained(self.path)


@dataclass(frozen=True)
class _Explained:
    path: Path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise OSError(f"{self.path}: cannot be written ({error.strerror}); lines written before are intact") from error


def header_entry(result: Result, options: RunOptions) -> dict[str, Any]:
    return {"result": result.to_json(), "options": asdict(options)}


def _sum(number: int, body: bytes) -> bytes:
    return hashlib.blake2b(b"%d %s" % (number, body), digest_size=8).hexdigest().encode()


def _body(number: int, line: bytes) -> bytes | None:
    """The entry's bytes, or None when the line is damaged."""
    start = len(PREFIX) + 16 + len(MIDDLE)
    body = line[start : -len(END)]
    return body if line == PREFIX + _sum(number, body) + MIDDLE + body + END else None


@lru_cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _checked(kind: Any, body: bytes) -> Any:
    return _adapter(kind).validate_json(body, strict=True)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _take(sessions: dict[int, History], body: bytes) -> None:
    event = json.loads(body, parse_constant=_refuse_constant)
    if not isinstance(event, dict):
        raise ValueError("an entry must be an object")
    fields = dict(event)
    index, kind = fields.pop("session", None), fields.pop("event", None)
    if not isinstance(index, int) or isinstance(index, bool) or index < 0 or not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"session {index!r}, event {kind!r} are not known")
    entry = _checked(KINDS[kind], json.dumps(fields, allow_nan=False).encode())
    del event["session"]
    sessions.setdefault(index, History()).add(kind, entry, event)


def _step(entry: Any) -> int:
    return int(entry["step"] if isinstance(entry, dict) else entry.step)


def _pair_id(path: Path) -> str | None:
    try:
        return read_journal(path).header.result.pair_id
    except UsageError:  # a damaged journal of another run is no reason not to find this one
        return None


def _first(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, found['loc'])) or 'entry'}: {found['msg'].lower()}"
    return str(error)
