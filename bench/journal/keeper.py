"""What keeps a session alive beyond its process: checksums, snapshots, the best state, and the way back to them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from bench.api import Executor, Workload
from bench.errors import UsageError
from bench.journal.entries import ChecksumEntry, History, SnapshotEntry
from bench.journal.events import Emit
from bench.journal.snapshots import KEPT, Snapshots
from bench.result import Evaluation


@dataclass
class Keeper:
    """Reports what it keeps as events; `history` holds what an earlier process reported, and grows."""

    executor: Executor
    workload: Workload
    history: History
    emit: Emit
    journal: Path | None
    session: int

    def rebuild(self, until: int | None = None) -> None:
        """From the untrained state to the one before step `until` (default: where the history ends), without a forward pass.

        UsageError when the state that comes out is not the one that was recorded.
        """
        steps, history = self.history.steps, self.history
        end = len(steps) if until is None else until
        if end == 0:
            return
        self.emit({"event": "stage", "name": "replay"})
        recorded = {entry.step: entry.value for entry in history.checksums if entry.step <= end}
        start = self._restore_newest(end) or 0
        if start == 0 and 0 in recorded:
            self._compare(0, recorded[0])
        import torch

        for step in range(start, end):
            losses = torch.tensor(steps[step].losses, dtype=torch.float32)
            self.executor.replay(self.workload, step, losses)
            if self.executor.seed(step) != steps[step].seed:
                raise UsageError(f"{self.journal}: step {step} replays with another seed than was recorded; run again")
            if step + 1 in recorded:
                self._compare(step + 1, recorded[step + 1])

    def checksum(self, step: int) -> None:
        if not any(entry.step == step for entry in self.history.checksums):
            entry = ChecksumEntry(step, self.executor.checksum())
            self.history.checksums.append(entry)
            self.emit({"event": "checksum", **asdict(entry)})

    def snapshot(self, step: int, kind: str) -> None:
        """Save the state, unless it is there. Room for it is made first: one file of a 13B model takes 25 GB."""
        snapshots = self.history.snapshots
        if self.journal is None or any((entry.step, entry.kind) == (step, kind) for entry in snapshots):
            return
        files = Snapshots(self.journal, self.session)
        files.prune(self._needed(files, KEPT - 1))
        entry = files.write(self.executor.snapshot(), step, self.executor.checksum(), kind)
        snapshots.append(entry)
        self.emit({"event": "snapshot", **asdict(entry)})
        files.prune(self._needed(files, KEPT))

    def finish(self) -> None:
        """A session that came to its end needs no snapshots; the first one's shorten an export."""
        if self.journal is not None and self.session > 0:
            Snapshots(self.journal, self.session).prune(())

    def evaluation(self, evaluation: Evaluation) -> None:
        self.history.evaluations.append(evaluation)
        self.emit({"event": "evaluation", **asdict(evaluation)})

    def evaluated(self, step: int, split: str) -> bool:
        return any((found.step, found.split) == (step, split) for found in self.history.evaluations)

    @property
    def best(self) -> int | None:
        """The step of the lowest dev loss so far, the earliest of equals."""
        dev = [found for found in self.history.evaluations if found.split == "dev"]
        return min(dev, key=lambda found: found.loss).step if dev else None

    def restore_best(self) -> bool:
        """Bring the best state back; False, with a warning, when its snapshot is damaged."""
        entry = next((entry for entry in self._kept("best") if entry.step == self.best), None)
        return entry is not None and self._restored(entry, "the best state is not evaluated")

    def _kept(self, kind: str) -> list[SnapshotEntry]:
        """Newest first."""
        return [entry for entry in reversed(self.history.snapshots) if entry.kind == kind]

    def _needed(self, files: Snapshots, checkpoints: int) -> set[str]:
        """Names of the files to keep: the newest checkpoints that are still there, and the newest best state."""
        there = [entry.file for entry in self._kept("checkpoint") if (files.folder / entry.file).exists()]
        return {*there[:checkpoints], *(entry.file for entry in self._kept("best")[:1])}

    def _restore_newest(self, end: int) -> int | None:
        """The step of the newest snapshot not after `end` that is whole, restored; None when there is none."""
        if self.journal is None:
            return None
        folder = Snapshots(self.journal, self.session).folder
        latest = {entry.file: entry for entry in self.history.snapshots}  # one that was damaged may have been written again
        for entry in sorted(latest.values(), key=lambda entry: entry.step, reverse=True):
            if entry.step <= end and (folder / entry.file).exists() and self._restored(entry):
                return entry.step
        return None

    def _restored(self, entry: SnapshotEntry, otherwise: str = "an earlier state is used") -> bool:
        assert self.journal is not None
        try:
            self.executor.restore(Snapshots(self.journal, self.session).read(entry))
        except UsageError as error:
            self.history.snapshots.remove(entry)  # or a damaged file would be kept in place of a good one
            self.emit({"event": "warning", "text": f"{error}; {otherwise}"})
            return False
        self._compare(entry.step, entry.checksum)
        return True

    def _compare(self, step: int, recorded: str) -> None:
        found = self.executor.checksum()
        if found != recorded:
            raise UsageError(
                f"{self.journal}: the state before step {step} has checksum {found}, recorded was {recorded}; "
                "weights, torch, device or threads are not those the run began with: restore them or run again"
            )
