"""What happened to the state since the model was loaded: updates as losses, and the newest snapshot.

A replica is known by its position in here. Whoever is behind (restarted, late, idle for a while) gets the entries that it lacks,
or the snapshot and those after it; that redoes the state bit for bit without a forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.api import Update, Workload

Replay = tuple[int, list[float], bool, Workload | None]
"""Step, its losses [n_probes], whether a checksum is due after it, and the workload where it is not the specification's."""
Entry = Replay | Update


@dataclass
class Log:
    """Positions count entries from the beginning of the run. snapshot: the position it was taken at, and a reference to it."""

    first: int = 0
    entries: list[Entry] = field(default_factory=list)
    snapshot: tuple[int, Any] | None = None

    @property
    def end(self) -> int:
        return self.first + len(self.entries)

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def since(self, position: int) -> list[Entry]:
        return self.entries[position - self.first :]

    def keep(self, workload: Workload) -> None:
        """Another workload follows: what was logged so far belongs to this one."""
        self.entries = [e if isinstance(e, Update) else (*e[:3], e[3] or workload) for e in self.entries]

    def took(self, position: int, reference: Any) -> None:
        """A snapshot of the state at a position: whoever is far behind begins with it."""
        self.snapshot = (position, reference)

    def jumped(self, reference: Any) -> None:
        """The state was replaced by that of a snapshot: nothing before it counts, and nobody is there yet."""
        self.first, self.entries = self.end + 1, []
        self.snapshot = (self.first, reference)

    def lost_snapshot(self) -> None:
        """Where it was no more than a short cut, go on without it. RuntimeError where it was the beginning."""
        if self.first > 0:
            raise RuntimeError("the snapshot that the run went on from is lost with its machine; go on with --resume")
        self.snapshot = None

    def start(self, position: int) -> tuple[int, Any]:
        """Where a replica at a position best begins to catch up: a position, and the snapshot to load there or None."""
        if self.snapshot is not None and (position < self.first or (position == 0 and self.snapshot[0] > 0)):
            return self.snapshot
        return position, None
