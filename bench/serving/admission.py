"""How many probe tokens a scheduling round may hold, so that users hardly notice. Knows no engine, only times and counts.

A user waits for the round that is running when the request comes, and for the probes in the rounds that serve it; or, where
training runs beside rounds, for what they take longer. So every first token has a time to it that was measured, and a part of it
which probes caused; the difference is what the user would have seen without training. From the last of these pairs the controller
works out how many probe tokens keep the tail within its bound. It falls to that at once and rises to it in small steps.
"""

from __future__ import annotations

import math
import random
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from bench.errors import UsageError

POLICIES = ("none", "fixed", "idle-only", "controller")
WINDOW, AGAIN = 200, 20
"""First tokens that the tail is taken from, and after how many new ones it is looked at."""
LEAST, STEP = 32, 16
APART, APART_S, ROUNDS = 1 / 8, 0.1, 500
"""Share of time without training beside rounds, drawn anew so often, so that its cost is known; how many rounds are kept."""
BURST = 4
"""Where more wait, training beside rounds stands still. Each time it is stopped or let go a round is delayed."""
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
    """tokens: the cap of `fixed`; most: probe tokens in a round where nobody waits."""

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


class Slowdown:
    """How much longer rounds take with training beside them: the last of both kinds, of those in which users only decode."""

    def __init__(self) -> None:
        self._kinds: dict[bool, deque[float]] = {beside: deque(maxlen=ROUNDS) for beside in (False, True)}

    def note(self, seconds: float, beside: bool) -> None:
        self._kinds[beside].append(seconds)

    def share(self) -> float:
        """Of the time of a round with training beside it, what that caused; 0 where nothing is known."""
        if not all(self._kinds.values()):
            return 0.0
        return max(0.0, 1 - fmean(self._kinds[False]) / fmean(self._kinds[True]))


@dataclass
class Admission:
    """Changes with every round; times in seconds of one clock. beside: whether training runs beside rounds, and not in them."""

    policy: Policy
    beside: bool = False
    budget: float = 0.0
    last_user: float = -math.inf
    seen: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))  # measured, added, per token
    slowdown: Slowdown = field(default_factory=Slowdown)
    _draw: random.Random = field(default_factory=lambda: random.Random(0))
    _new: int = 0
    _until: float = 0.0
    _stands: bool = False

    def __post_init__(self) -> None:
        self.budget = self._least

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
        if waiting > (BURST if self.beside else 0) or (self.beside and users and self._apart(now)):
            return 0
        return self.policy.most if now - self.last_user > ALONE_S else int(self.budget)

    def _apart(self, now: float) -> bool:
        """Whether it is time for rounds without training beside them."""
        if now >= self._until:
            self._until, self._stands = now + APART_S, self._draw.random() < APART
        return self._stands

    def first_token(self, measured: float, added: float) -> None:
        """A user got a first token so long after the request came, and so much of that was probes."""
        added = min(added, measured)
        self.seen.append((measured, added, added / max(1.0, self.budget)))
        self._new += 1
        if self._new >= AGAIN:
            self._new = 0
            self.budget = min(self.budget + STEP, self.fitting())

    def fitting(self) -> float:
        """The most probe tokens with which the tail would have stayed within the bound, and at least `LEAST`: below that
        nothing is learned any more, and a tail that a bound forbids without any probe is not theirs. Of probes in rounds at most
        the bound's share of one: between the users' tokens they make answers last longer, so that more of them share a round,
        which no first token counts as a wait for probes."""
        alone = [measured - added for measured, added, _ in self.seen]
        tail = percentile(alone, 0.99)
        bound = self.policy.slo.bound(tail)
        share = bound / tail - 1 if tail and not self.beside else 1.0
        low, high = self._least, max(self._least, self.policy.most * min(1.0, share))
        while high - low > 1:
            middle = (low + high) / 2
            tail = percentile([own + middle * each for own, (_, _, each) in zip(alone, self.seen, strict=True)], 0.99)
            low, high = (middle, high) if tail <= bound else (low, middle)
        return low

    @property
    def _least(self) -> float:
        return float(min(LEAST, self.policy.most))

    def facts(self) -> dict[str, Any]:
        """Plain JSON for GET /training: times as the engine sees them, network and tokenizer left out."""
        return {
            "policy": self.policy.name,
            "budget_tokens": int(self.budget) if self.policy.name == "controller" else None,
            "ttft_p99_s": percentile([measured for measured, _, _ in self.seen], 0.99) if self.seen else None,
            "ttft_p99_without_probes_s": percentile([m - added for m, added, _ in self.seen], 0.99) if self.seen else None,
            "first_tokens": len(self.seen),
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
