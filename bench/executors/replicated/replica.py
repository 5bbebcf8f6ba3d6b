"""What runs in an actor: an executor with the whole model, and its position in the driver's log.

Every message says where its sender believes the replica to stand. One that was killed and started again stands at the beginning;
it says so and does nothing, and the driver brings it up to date. Scoring changes nothing, so repeating a message is harmless.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.api import Executor, Snapshot, Update, Workload
from bench.config import RunSpec
from bench.data import ModelSource, TaskData
from bench.errors import UsageError
from bench.executors.replicated.items import Batches, Item, Numbered, Span
from bench.executors.replicated.log import Entry
from bench.registry import make_executor, make_workload

Sums = tuple[tuple[int, str], ...]
ScoreTask = tuple[str, Any, Batches]
"""What is done ("score", "evaluate", "generate"); of which probes: a step's plan by its number, or themselves; on which batch."""


class Answer(NamedTuple):
    """position: where the replica stands, UNLOADED before it has a model; value: None where it was not where it had to be;
    apply_s, work_s: seconds spent in moving the parameters and in the rest; sums: (position, checksum) of the entries that asked
    for one."""

    position: int
    process: int
    value: Any = None
    apply_s: float = 0.0
    work_s: float = 0.0
    sums: Sums = ()


UNLOADED = -1
Given = tuple[RunSpec, ModelSource, TaskData, str, int]
"""What all replicas are made from; the last are the digest of the model's files as the driver sees them, and the threads."""


class Replica:
    """link_s: seconds that every message is held up, to try out a slow network."""

    def __init__(self, number: int) -> None:
        self.number, self.link_s, self.position = number, 0.0, UNLOADED
        self.executor: Executor | None = None

    def load(self, given: Given) -> Answer:
        """Load the model, unless that is done. UsageError where this machine has other files than the driver's."""
        if self.executor is None:
            import torch

            from workloads.models.digest import model_digest
            from workloads.models.table import resolve_model

            spec, source, task, digest, threads = given
            torch.set_num_threads(threads)
            if not os.path.isdir(source.path):
                source = resolve_model(spec.model, spec.weights, trust_remote_code=spec.trust_remote_code)
            if model_digest(source) != digest:
                where = f"{source.path} on {os.uname().nodename}"
                raise UsageError(f"--model {spec.model}: {where} has other files than here; copy them")
            executor = make_executor(spec.executor)
            executor.load(spec, source, task)
            torch.set_num_threads(threads)
            self.workload, self.numbered, self.executor, self.position = make_workload(spec), Numbered(task), executor, 0
        return self._answer(os.uname().nodename)

    def work(self, start: int, entries: Sequence[Entry], task: ScoreTask, items: Sequence[Item] | Sequence[Span]) -> Answer:
        """Apply what is new, then do the items: one result each."""
        time.sleep(self.link_s)
        executor = self.executor
        if self.position != start or executor is None:
            return self._answer()
        began = time.perf_counter()
        sums = self._apply(executor, entries)
        applied = time.perf_counter()
        what, given, packed = task
        batch = self.numbered.unpack(packed)
        found: list[Any] = []
        for item in items:
            if what == "score":
                probes = self.workload.plan(given) if isinstance(given, int) else given
                first, last, low, high = item  # type: ignore[misc]
                found.append(executor.score(batch[low:high], probes[first:last]).tolist())
            else:
                low, high = item  # type: ignore[misc]
                found.append(getattr(executor, what)(batch[low:high]))
        return self._answer(found, applied - began, time.perf_counter() - applied, sums)

    def catch_up(self, start: int, snapshot: Answer | Snapshot | None, entries: Sequence[Entry]) -> Answer:
        """Load a snapshot, where one is given, and apply the entries after it."""
        executor = self.executor
        if executor is None or (snapshot is None and self.position != start):
            return self._answer()
        if snapshot is not None:
            executor.restore(snapshot.value[0] if isinstance(snapshot, Answer) else snapshot)
            self.position = start
        sums = self._apply(executor, entries)
        return self._answer(True, sums=sums)

    def ask(self, start: int, entries: Sequence[Entry], name: str, *arguments: Any) -> Answer:
        """Apply what is new, then call a method of the executor."""
        executor = self.executor
        if self.position != start or executor is None:
            return self._answer()
        sums = self._apply(executor, entries)
        return self._answer((getattr(executor, name)(*arguments),), sums=sums)

    def switch(self, spec: RunSpec) -> Answer:
        """Take over the features of a specification, between two steps."""
        if self.executor is not None:
            self.executor.switch(spec)
            self.workload = make_workload(spec)
        return self._answer(True)

    def delay(self, link_s: float) -> Answer:
        """Hold up every message from now on by so many seconds."""
        self.link_s = link_s
        return self._answer(True)

    def close(self) -> None:
        if self.executor is not None:
            self.executor.close()

    def _answer(self, value: Any = None, apply_s: float = 0.0, work_s: float = 0.0, sums: Sums = ()) -> Answer:
        return Answer(self.position, os.getpid(), value, apply_s, work_s, sums)

    def _apply(self, executor: Executor, entries: Sequence[Entry]) -> Sums:
        import torch

        sums = []
        for entry in entries:
            if isinstance(entry, Update):
                executor.apply(entry)
                due = False
            else:
                step, losses, due, other = entry
                workload: Workload = other or self.workload
                executor.replay(workload, step, torch.tensor(losses, dtype=torch.float32))
            self.position += 1
            if due:
                sums.append((self.position, executor.checksum()))
        return tuple(sums)
