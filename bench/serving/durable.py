"""What a server has to remember: a journal of its steps, versions and posted rows, and snapshots of the state.

The journal is the suite's own (`bench.journal`), with one session. Killed at any moment, the server goes on from it: steps after
the newest snapshot are redone from their losses, and `tuned` is the version that it was.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.config import RunOptions, RunSpec
from bench.environment import environment, source
from bench.errors import UsageError
from bench.journal.entries import ExamplesEntry, History, PublishedEntry, SnapshotEntry, StepEntry
from bench.journal.file import SUFFIX, JournalWriter, header_entry
from bench.journal.snapshots import KEPT, Snapshots
from bench.journal.store import new_id, utc_now
from bench.registry import workload_class
from bench.result import Result

NAME = "serving" + SUFFIX
KEPT_VERSIONS = 10
"""So many published versions can be gone back to."""
CHOSEN = ("device", "steps")
"""Fields of a specification that another call may give another value."""


class Durable:
    """folder: of one server at a time. digests: of the model and the data, which have to be the same ones later.

    history, last: what the folder held, until it is forgotten, and the last step that is done
    """

    def __init__(self, folder: str, spec: RunSpec, digests: dict[str, str]) -> None:
        self.path = Path(folder).absolute() / NAME
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--state {folder}: cannot be made ({error.strerror}); give a writable folder") from None
        there = self.path.exists() and self.path.stat().st_size > 0
        self._writer = JournalWriter(self.path, new=not self.path.exists())
        try:
            if there:
                self.history = self._go_on(folder, spec, digests)
            else:
                version = workload_class(spec.workload).version
                facts = spec.to_json(), version, environment(spec.device), source()
                self._writer.write(header_entry(Result(new_id(), utc_now(), "passed", *facts, data=digests), RunOptions()))
                self.history = History()
            self.last = self.history.steps[-1] if self.history.steps else None
        except BaseException:
            self._writer.close()
            raise

    def _go_on(self, folder: str, spec: RunSpec, digests: dict[str, str]) -> History:
        journal = self._writer.read()
        old, new = journal.header.spec.to_json(), spec.to_json()
        other = [name for name in new if name not in CHOSEN and old[name] != new[name]]
        other += [name for name, value in digests.items() if journal.header.result.data.get(name) != value]
        if journal.header.result.workload_version != workload_class(spec.workload).version:
            other.append("version of the algorithm")
        if other:
            raise UsageError(
                f"--state {folder}: holds a server's training with another {', '.join(other)}; give another folder, or remove it"
            )
        return journal.sessions.get(0, History())

    def forget(self) -> None:
        """The steps and rows that the folder held: Python looks through all there is when it collects garbage, and users wait."""
        self.history = replace(self.history, events=[], steps=[], examples=[])

    @property
    def steps(self) -> int:
        """That are done."""
        return 0 if self.last is None else self.last.step + 1

    def step(self, entry: StepEntry) -> None:
        self._write("step", asdict(entry))
        self.last = entry

    def snapshot(self, entry: dict[str, Any]) -> None:
        self.history.snapshots.append(SnapshotEntry(**entry))
        self._write("snapshot", entry)

    def published(self, entry: PublishedEntry) -> None:
        """Known on the disk before a user can read it."""
        self.history.published.append(entry)
        self.history.served = entry.version
        self._write("published", asdict(entry), sync=True)

    def served(self, version: int) -> None:
        self.history.served = version
        self._write("served", {"version": version}, sync=True)

    def examples(self, entry: ExamplesEntry) -> None:
        """On the disk when this returns."""
        self._write("examples", asdict(entry), sync=True)

    def newest(self) -> SnapshotEntry | None:
        """The newest snapshot that is still there."""
        return next((entry for entry in reversed(self.history.snapshots) if self._there(entry)), None)

    def of_version(self, version: int) -> SnapshotEntry | None:
        """The snapshot of a published version."""
        step = next((entry.step for entry in reversed(self.history.published) if entry.version == version), None)
        return next((entry for entry in reversed(self.history.snapshots) if entry.step == step and self._there(entry)), None)

    def prune(self) -> None:
        """Keep the newest snapshots, those of the last versions, and that of the one which is served."""
        wanted = [entry.version for entry in self.history.published[-KEPT_VERSIONS:]] + [self.history.served]
        kept = [entry for version in wanted if (entry := self.of_version(version))]
        there = [entry for entry in self.history.snapshots if self._there(entry)]
        files = {entry.file for entry in (*kept, *there[-KEPT:])}
        Snapshots(self.path, 0).prune(files)
        self.history.snapshots[:] = [entry for entry in there if entry.file in files]

    def close(self) -> None:
        self._writer.close()

    def _there(self, entry: SnapshotEntry) -> bool:
        return (Snapshots(self.path, 0).folder / entry.file).exists()

    def _write(self, kind: str, fields: dict[str, Any], *, sync: bool = False) -> None:
        self._writer.event(0, {"event": kind, **fields})
        if sync:
            self._writer.sync()
