"""What users would have waited without training: a clock that their own work alone moves.

A round that training took delays not only who came in it: everybody behind him in the queue is late too. So the users' work is
put end to end on a second clock (Lindley's recursion), each piece no earlier than its request came. A first token is late by what
the real clock is ahead of that one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

KEPT = 512
"""Pieces of training that are looked back at."""


class Waits:
    """Times in seconds of one clock. over: when the users' work so far would have been over had nothing else run."""

    def __init__(self) -> None:
        self.over = self._served = -math.inf
        self._trained: deque[tuple[float, float, float]] = deque(maxlen=KEPT)

    def train(self, begin: float, end: float, share: float = 1.0) -> None:
        """Training took such a share of this time."""
        if share > 0:
            self._trained.append((begin, end, share))

    def serve(self, end: float, came: Sequence[float], tokens: Sequence[int]) -> float:
        """A round that users had a part in is over. By how many seconds they are late.

        came: when each of their requests came, -inf for those who had a round before; tokens: of each in this round.
        """
        begin = max(self._served, min(came)) if min(came) > -math.inf else self._served
        begin = end if begin == -math.inf else begin
        own, self._served = max(0.0, end - begin - self._training(begin, end)), end
        for at, count in sorted(zip(came, tokens, strict=True)):
            self.over = max(self.over, at) + own * count / max(1, sum(tokens))
        self.over = min(self.over, end)
        return end - self.over

    def _training(self, begin: float, end: float) -> float:
        spent = 0.0
        for start, stop, share in reversed(self._trained):
            if stop <= begin:
                break
            spent += share * (min(stop, end) - max(start, begin))
        return spent
