"""Keeps the engine in minibatches, a few ahead, and fetches what it made of them."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import Any

from bench.data import Batch
from bench.serving.course import Done, sent
from bench.serving.feed import Feed
from bench.serving.messages import Rpc

AHEAD = 4
"""So many minibatches are drawn ahead; a row that is posted meanwhile comes after them."""
LEAST_S, MOST_S = 0.005, 0.1
"""Between two looks at what the engine has done."""


class Supply:
    """inside: minibatches that training has, or whose losses nobody has fetched; done: fetched, and for the caller to take;
    facts: how training stood then."""

    def __init__(self, rpc: Rpc, feed: Feed) -> None:
        self._rpc, self._feed, self.inside = rpc, feed, 0
        self._drawn: deque[Batch] = deque()  # of steps that are not done, those that the engine has first
        self.done: deque[Done] = deque()
        self._took_s = 0.0
        self.facts: dict[str, Any] = {}

    @property
    def drawn(self) -> int:
        return len(self._drawn)

    async def fill(self, step: int, most: float) -> None:
        """Send minibatches of `step`, the first that is not done, and of those after it, at most so many in all."""
        wanted = int(min(AHEAD, most))
        if self.inside > wanted // 2:
            return
        while len(self._drawn) < wanted:
            self._drawn.append(self._feed.next(step + len(self._drawn)))
        more = [sent(batch) for batch in islice(self._drawn, self.inside, wanted)]
        await self._rpc("train", step + self.inside, more)
        self.inside += len(more)

    async def hold(self) -> None:
        """Let no further step begin. What was drawn is sent again later."""
        self.inside = await self._rpc("hold")

    async def fetch(self) -> str | None:
        """After a while in which steps may end, those that are done; what went wrong in the engine, if something did."""
        await asyncio.sleep(min(max(self.inside * self._took_s / 2, LEAST_S), MOST_S))
        found = await self._rpc("trained")
        self.facts = found["facts"]
        for fields in found["done"]:
            self.done.append(Done(*fields))
            self._took_s = self.done[-1].seconds
            self._drawn.popleft()
            self.inside -= 1
        error: str | None = found["error"]
        if error:
            self.inside = 0
        return error
