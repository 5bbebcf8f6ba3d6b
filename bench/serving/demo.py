"""`python -m bench.serving.demo`: a server that learns from sentences while users ask it about others; ends by itself.

Users ask `tuned` whether held-out sentences are good or bad, at random times. For a while nothing trains; then it does, and they
see better answers, about as soon as before.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.data import Example
from bench.harness.inputs import prepare
from bench.serving.child import Child
from bench.serving.load import Control
from bench.serving.site import specification

RATE, BEFORE_S, MOST_S, EVERY_S = 6.0, 12.0, 150.0, 6.0
ENOUGH, RECENT = 0.9, 100


@dataclass
class Users:
    """What they saw: seconds to the answer of one token, whether it was right, and which version gave it."""

    url: str
    examples: list[Example]
    waits: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    version: str = ""
    failed: int = 0

    async def come(self) -> None:
        """One after the other, at random times, each for itself."""
        draw = random.Random(0)
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client, asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._ask(client, draw.choice(self.examples)))
                await asyncio.sleep(draw.expovariate(RATE))

    async def _ask(self, client: httpx.AsyncClient, example: Example) -> None:
        options = [option[0] for option in example.options]
        body = {"model": "tuned", "prompt": list(example.prompt), "max_tokens": 1, "temperature": 0}
        begin = time.perf_counter()
        answer = await client.post("/v1/completions", json=body | {"allowed_token_ids": options, "return_token_ids": True})
        self.waits.append(time.perf_counter() - begin)
        if answer.status_code != 200:
            self.failed += 1
            return
        found = answer.json()
        self.version = found["model"]
        self.right.append(found["choices"][0]["token_ids"][0] == options[example.label])


async def show(url: str, examples: list[Example]) -> dict[str, Any]:
    """The users' view before and while it trains; ends when enough of the last answers are right, or the time is over."""
    users, control = Users(url, examples), Control(url)
    going = asyncio.create_task(users.come())
    say("users come, nothing trains")
    await asyncio.sleep(BEFORE_S)
    before, waits = mean(users.right), p99(users.waits)
    say(f"{len(users.waits)} answers of {users.version}: {before:.2f} right, p99 {waits * 1e3:.0f} ms")
    control.post("start")
    start, since = time.monotonic(), len(users.waits)
    now = before
    while (now < ENOUGH or len(users.waits) - since < RECENT) and time.monotonic() - start < MOST_S:
        await asyncio.sleep(EVERY_S)
        now = mean(users.right[-RECENT:])
        facts = await asyncio.to_thread(control.facts)
        if facts["error"]:
            raise OSError(facts["error"])
        told = f"step {facts['step']}, {facts['steps_per_s']:.1f} steps/s, {users.version}: {now:.2f} of the last {RECENT} right"
        say(f"{told}, p99 {p99(users.waits[since:]) * 1e3:.0f} ms")
    going.cancel()
    control.close()
    after = p99(users.waits[since:])
    seen = {"accuracy_before": before, "accuracy_after": now, "p99_s_before": waits, "p99_s_while_training": after}
    return seen | {"requests": len(users.waits), "failed": users.failed}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def mean(values: list[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def p99(values: list[float]) -> float:
    return float(np.quantile(values, 0.99)) if values else 0.0


def main() -> int:
    """0 where users got what they were promised: right answers, and none failed."""
    examples = list(prepare(specification({})).task.eval)
    say("starting vLLM's server with opt-tiny")
    with tempfile.TemporaryDirectory(prefix="zo-demo-") as folder:
        child = Child({}, {"port": 0, "state": folder + "/state"}, Path(folder) / "server.log")
        try:
            seen = asyncio.run(show(child.url, examples))
        finally:
            child.end()
    good = seen["accuracy_after"] >= ENOUGH and not seen["failed"]
    print(json.dumps({"status": "passed" if good else "failed", **seen}, separators=(",", ":")))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
