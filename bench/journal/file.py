"""The journal: everything a run has seen, one line after the other, so that a run survives anything.

A zeroth-order run is its seeds and its losses; from them any state can be redone without a forward pass. Each line is JSON,
`{"sum": ..., "entry": ...}`; the checksum covers the line's number and its entry's bytes. What the entries say is in
`bench.journal.entries`. A torn last line is dropped; any other damage is named.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.config import RunOptions
from bench.errors import UsageError
from bench.files import sync_folder
from bench.journal.entries import Header, History, read_header, reason, take
from bench.journal.events import Event, plain
from bench.result import Result

SUFFIX = ".journal.jsonl"
SYNC_S = 5.0
PREFIX, MIDDLE, END = b'{"sum":"', b'","entry":', b"}"


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
        header = read_header(bodies[0])
        for body in bodies[1:]:
            number += 1
            take(sessions, body)
    except (ValueError, RecursionError, UsageError) as error:
        raise UsageError(f"{path}: line {number} is not of this suite: {reason(error)}") from None
    return Journal(path, header, sessions, len(bodies), length)


def read_head(path: Path) -> Header | None:
    """What a run was to be, by the first line of its journal; None for a file that is no journal."""
    try:
        with open(path, "rb") as file:
            body = _body(1, file.readline().removesuffix(b"\n"))
        return None if body is None else read_header(body)
    except (OSError, ValueError, RecursionError, UsageError):
        return None


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
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT | os.O_EXCL if new else 0), 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UsageError(f"{path}: the run is still going on in another process; wait for it or end it") from None
        if new:
            sync_folder(path.parent)

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

    def sync(self) -> None:
        """Force what was written to the disk: whoever is told that it is kept may rely on it."""
        with self._explained():
            os.fsync(self._file)
            self._synced = time.monotonic()

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
            raise OSError(
                f"{self.path}: cannot be written ({error.strerror}); lines written before are intact, mend that and --resume"
            ) from error


def header_entry(result: Result, options: RunOptions) -> dict[str, Any]:
    return {"result": result.to_json(), "options": asdict(options)}


def _sum(number: int, body: bytes) -> bytes:
    return hashlib.blake2b(b"%d %s" % (number, body), digest_size=8).hexdigest().encode()


def _body(number: int, line: bytes) -> bytes | None:
    """The entry's bytes, or None when the line is damaged."""
    start = len(PREFIX) + 16 + len(MIDDLE)
    body = line[start : -len(END)]
    return body if line == PREFIX + _sum(number, body) + MIDDLE + body + END else None


def _pair_id(path: Path) -> str | None:
    try:
        return read_journal(path).header.result.pair_id
    except UsageError:  # a damaged journal of another run is no reason not to find this one
        return None
