"""What the server's process asks of training, by these methods' names: within the engine, or in a process beside it.

Only numbers and names cross; directions are drawn here, from their seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.data import Objective
from bench.journal.entries import SnapshotEntry
from bench.journal.snapshots import Snapshots
from bench.serving.course import Adapter, Course, Scores, received
from bench.serving.passes import Passes
from bench.serving.questions import Questions
from bench.serving.state import Trained
from workloads.parameters.stacked import StackedState


class Training:
    """probes: adapters of the probes' slots."""

    def __init__(self, state: Trained, scorer: Passes | Questions, objective: Objective, probes: Sequence[Adapter]) -> None:
        self.state, self.scorer = state, scorer
        self.course = Course(state, scorer, objective, probes)
        self._saving: Future[SnapshotEntry] | None = None
        self._pool = ThreadPoolExecutor(1)

    @property
    def waits(self) -> bool:
        return self.course.waits or self.scorer.waits

    def advance(self) -> None:
        """One piece of what there is to do: of a step, or of a scoring."""
        if not self.course.advance():
            self.scorer.advance()

    def train(self, first: int, batches: list[Any]) -> None:
        """Take the steps of these minibatches, as `sent` has them, when users leave room."""
        self.course.add(first, map(received, batches))

    def trained(self) -> dict[str, Any]:
        """The steps that were done since it was last asked, what went wrong, and how it stands."""
        done = [(one.step, one.end, one.seconds, one.losses) for one in self.course.take()]
        return {"done": done, "error": self.course.error, "facts": self.facts()}

    def hold(self) -> int:
        """Begin no further step; how many are still to be told of."""
        return self.course.hold()

    def score(self, examples: list[Any], adapters: list[Adapter]) -> None:
        """Score examples, as `sent` has them, under the states of these adapters, when users leave room."""
        self.scorer.ask(received(examples), adapters)

    def answers(self) -> Scores | None:
        """What was last asked for, once all of it is known."""
        return self.scorer.answers()

    @torch.inference_mode()
    def replay(self, first: int, losses: list[list[float]]) -> None:
        """Do again what steps did to the state, without scoring, compressions included."""
        for step, found in enumerate(losses, start=first):
            while self.state.stack.width(self.state.current(step)) > self.state.room:
                self.state.compress(step, len(self.state.stack.names))
            self.state.apply(step, found)

    @torch.inference_mode()
    def publish(self, adapter: int) -> None:
        """The state after the last step that is done, into the slot of this adapter."""
        self.course.settle()
        self.state.publish(self.state.stack, adapter)

    def clear(self, adapter: int) -> None:
        self.state.slots.clear(self.state.slot_of[adapter])

    @torch.inference_mode()
    def load(self, adapter: int, journal: str, entry: dict[str, Any]) -> None:
        """A saved state into a slot; training keeps its own."""
        self.state.publish(self._read(journal, entry), adapter)

    @torch.inference_mode()
    def restore(self, journal: str, entry: dict[str, Any]) -> None:
        self.state.stack = self._read(journal, entry)

    def _read(self, journal: str, entry: dict[str, Any]) -> StackedState:
        found, stack = SnapshotEntry(**entry), self.state.fresh()
        stack.restore(Snapshots(Path(journal), 0).read(found))
        if stack.checksum() != found.checksum:
            raise ValueError(f"{found.file}: the state in it is not the one that was saved")
        return stack

    def save(self, journal: str, step: int) -> None:
        """Copy the state and write it to the disk in a thread: no request waits for a disk."""
        self.course.settle()
        snapshot, checksum = self.state.stack.snapshot(), self.state.stack.checksum()
        self._saving = self._pool.submit(Snapshots(Path(journal), 0).write, snapshot, step, checksum, "checkpoint")

    def saved(self) -> dict[str, Any] | None:
        """The entry of what was saved, once it is on the disk."""
        return asdict(self._saving.result()) if self._saving is not None and self._saving.done() else None

    def facts(self) -> dict[str, Any]:
        slots, stack, longest = self.state.slot_bytes, self.state.stack, self.course.longest_compression_s
        memory = {"adapter_slots": slots, "state": stack.nbytes(), "packed_weights": self.scorer.nbytes()}
        return {"compression": stack.facts(), "longest_compression_s": longest, "memory_bytes": memory}
