"""A replica as the driver knows it, the message that is under way to it, and what a round of messages took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Call:
    """A message under way. run: number of the `run` that it belongs to; items: indices of its items."""

    reference: Any
    kind: str
    run: int = 0
    items: tuple[int, ...] = ()
    sent: float = field(default_factory=time.monotonic)
    repeated: bool = False


@dataclass
class Member:
    """A replica as the driver knows it. position: in the log, None before it was heard of; lost: why it is given up."""

    number: int
    actor: Any
    call: Call | None = None
    position: int | None = None
    process: int | None = None
    node: str = ""
    failures: int = 0
    lost: str = ""
    astray: bool = False

    @property
    def free(self) -> bool:
        return self.call is None and self.position is not None and not self.lost and not self.astray


@dataclass
class Timing:
    """One `run`: what was done, seconds of it all, and of each answer that counted (moving the parameters, working); bytes of the
    messages and answers."""

    what: str
    wall_s: float
    answers: list[tuple[float, float]]
    sent_bytes: int
