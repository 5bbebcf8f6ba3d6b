"""How long each stage of a session takes, so that a wall clock can be accounted for."""

from __future__ import annotations

import time
from collections import defaultdict

from bench.journal.events import Emit, Event


def timed_stages(emit: Emit) -> Emit:
    """The same `emit`, which reports before `done` how many seconds were spent in each stage that it was told of."""
    spent: dict[str, float] = defaultdict(float)
    now, since = "", time.perf_counter()

    def timed(event: Event) -> None:
        nonlocal now, since
        if event["event"] in ("stage", "done"):
            at = time.perf_counter()
            if now:
                spent[now] += at - since
            now, since = event.get("name", ""), at
        if event["event"] == "done":
            emit({"event": "stages", **spent})
        emit(event)

    return timed
