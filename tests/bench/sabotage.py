"""Replicas that fail on purpose: killed at exact moments, slow, silent, or with a state of their own.

What is to happen stands in a folder that the driver writes and the actors read, one file an incident; an actor takes the file
away before it acts, so nothing happens twice.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from bench.executors.replicated.executor import ReplicatedExecutor
from bench.executors.replicated.replica import Answer, Replica


class Saboteur(Replica):
    """Incidents are named POINT-REPLICA-COUNT: at the COUNT-th time that this replica comes to the point."""

    def load(self, given: Any) -> Answer:
        if self.executor is not None:
            return super().load(given)
        *parts, self.folder = given
        self.left: dict[str, int] = {}
        self.reach("load")
        found = super().load(tuple(parts))
        from workloads.parameters import accumulated

        self.wrap(accumulated, "add_", "fold")
        self.wrap(self.executor, "score", "score")
        self.wrap(self.executor, "replay", "apply")
        return found

    def wrap(self, owner: Any, name: str, point: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.reach(point)
            return original(*arguments, **named)

        setattr(owner, name, wrapped)

    def reach(self, point: str) -> None:
        for path in sorted(Path(self.folder).glob(f"{point}-{self.number}-*")):
            what, count = path.read_text(), int(path.name.rpartition("-")[2])
            if self.left.setdefault(path.name, count) > 1:
                self.left[path.name] -= 1
                continue
            path.unlink()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if what.startswith("sleep"):
                time.sleep(float(what.split()[1]))
            if what == "flip":
                weight = next(iter(self.executor.moved.weights.values()))  # type: ignore[union-attr]
                weight.view(-1)[0] += 1e-3


class Sabotaged(ReplicatedExecutor):
    """folder: where incidents are written."""

    replica = Saboteur
    folder: Path

    def given(self, *parts: Any) -> tuple[Any, ...]:
        return (*super().given(*parts), str(self.folder))

    def plan(self, point: str, replica: int, count: int = 1, what: str = "kill") -> Path:
        path = self.folder / f"{point}-{replica}-{count}"
        path.write_text(what)
        return path
