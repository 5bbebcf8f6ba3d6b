"""When training may have the engine, so that users hardly notice. Knows no engine, only times and counts.

A user waits for the pass that is running when the request comes, for those whom it made wait before him, and for training's part
of the rounds that serve him. So every first token has a time to it that was measured, and a part of that which training caused
(`bench.serving.waits`); the difference is what the user would have seen without. From the last of these pairs the controller
works out which share of the time training may take while the tail stays within its bound. It falls fast and rises in small steps. What it rations is time, not the size of a pass: small passes cost the engine more for each token, and nobody
waits longer than for one of them.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.errors import UsageError

POLICIES = ("none", "fixed", "idle-only", "controller")
WINDOW, AGAIN = 200, 20
"""First tokens that the tail is taken from, and after how many new ones it is looked at."""
FIRST, LEAST, STEP = 0.1, 0.02, 0.02
"""Shares of the time for training beside users: to begin with, the least, and by how much it rises at a time."""
ALONE_S = 10.0
"""So long after the last user the controller takes all there is."""
SLO = re.compile(r"ttft_p99=(?:\+(?P<share>\d+(?:\.\d+)?)%|(?P<ms>\d+(?:\.\d+)?)ms)")


@dataclass(frozen=True)
class Slo:
    """A bound on the 99th percentile of the time to first token: a share above what it is without probes, or seconds."""

    share: float | None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Slo:
        found = SLO.fullmatch(text)
        if not found or not (float(found["share"] or found["ms"]) > 0):
            raise UsageError(f"--slo {text}: expected a bound such as ttft_p99=+15% or ttft_p99=80ms")
        return cls(float(found["share"]) / 100) if found["share"] else cls(None, float(found["ms"]) / 1e3)

    def bound(self, alone: float) -> float:
        """Seconds that the tail may take where it would take `alone` without probes."""
        return alone * (1 + self.share) if self.share is not None else float(self.seconds or 0)


@dataclass(frozen=True)
class Policy:
    """tokens: most probe tokens of a round beside users, `fixed` and `controller`; most: where nobody is there."""

    name: str
    tokens: int
    slo: Slo
    most: int

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise UsageError(f"--policy {self.name}: not known; choose one of {', '.join(POLICIES)}")
        if not (isinstance(self.tokens, int) and self.tokens >= 1):
            raise UsageError(f"--probe-tokens {self.tokens}: must be a whole number of at least 1")

    @classmethod
    def of(cls, name: str, tokens: int, slo: str, most: int) -> Policy:
        return cls(name, tokens, Slo.parse(slo), most)


@dataclass
class Admission:
    """Changes with every round; times in seconds of one clock. share: of the time, that the controller lets training have."""

    policy: Policy
    share: float = FIRST
    last_user: float = -math.inf
    seen: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))  # measured, added, share
    _rests_until: float = -math.inf
    _new: int = 0

    def allowed(self, now: float, waiting: int, users: int) -> int:
        """Probe tokens of the round that begins. waiting: users without a first token; users: all that are in the engine."""
        if users:
            self.last_user = now
        match self.policy.name:
            case "none":
                return self.policy.most
            case "fixed":
                return self.policy.tokens
            case "idle-only":
                return 0 if users else self.policy.most
        if waiting or self.rests(now):
            return 0
        return min(self.policy.most, self.policy.tokens) if self._beside(now) else self.policy.most

    def rests(self, now: float) -> bool:
        """Whether training has had its share for now."""
        return self.policy.name == "controller" and now < self._rests_until and self._beside(now)

    def _beside(self, now: float) -> bool:
        return now - self.last_user <= ALONE_S

    def spent(self, end: float, seconds: float) -> None:
        """Training had the engine for so long. What it takes while nobody is about is not held against it."""
        self._rests_until = (max(self._rests_until, end) + seconds * (1 / self.share - 1)) if self._beside(end) else end

    def first_token(self, measured: float, added: float) -> None:
        """A user got a first token so long after the request came, and so much of that was training's."""
        self.seen.append((measured, min(added, measured), self.share))
        self._new += 1
        if self._new >= AGAIN and len(self.seen) >= WINDOW // 2:
            self._new = 0
            self.share = max(LEAST, self.share / 2, min(self.share + STEP, self.fitting()))

    def fitting(self) -> float:
        """The share with which the tail would have stayed within the bound: the slowest users are late by so much a share of the
        time, on the mean over a tenth of all, for single ones are too few to tell."""
        alone = percentile([measured - added for measured, added, _ in self.seen], 0.99)
        slowest = sorted(self.seen, reverse=True)[: math.ceil(len(self.seen) / 10)]
        late = sum(added / share for _, added, share in slowest) / len(slowest)
        room = self.policy.slo.bound(alone) - alone
        return min(1.0, room / late) if late > 0 else 1.0

    def facts(self) -> dict[str, Any]:
        """Plain JSON for GET /training: times as the engine sees them, network and tokenizer left out."""
        return {
            "policy": self.policy.name,
            "share_allowed": self.share if self.policy.name == "controller" else None,
            "ttft_p99_s": percentile([measured for measured, _, _ in self.seen], 0.99) if self.seen else None,
            "ttft_p99_without_training_s": percentile([m - added for m, added, _ in self.seen], 0.99) if self.seen else None,
            "first_tokens": len(self.seen),
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
