"""The steps of training beside a live server, and when what they learned is offered to the users."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from bench.api import Workload
from bench.config import RunSpec
from bench.data import Example, TaskData
from bench.errors import UsageError
from bench.journal.entries import ExamplesEntry, PublishedEntry, StepEntry
from bench.serving.admission import Policy
from bench.serving.durable import Durable
from bench.serving.feed import Checked, Feed
from bench.serving.messages import Rpc
from bench.serving.probes import option_logprobs
from bench.serving.publishing import Refused, Ring
from bench.serving.settings import ServeOptions
from bench.serving.supply import Supply
from workloads.tasks.judge import judge

POLL_S, PATIENCE_S, RECENT = 0.01, 10.0, 50
WAITS = "the step that is under way waits for users; try again, or POST /training/start with another policy"
READ = "all slots of published versions are being read; try again, or start with more --versions"


@dataclass
class Trainer:
    """total: steps after which it ends; None: never. admission: policy, probe_tokens and slo."""

    spec: RunSpec
    options: ServeOptions
    task: TaskData
    workload: Workload
    engine: Rpc
    training: Rpc
    ring: Ring
    durable: Durable
    feed: Feed
    checked: Checked
    total: int | None
    admission: dict[str, Any]
    on: asyncio.Event = field(default_factory=asyncio.Event)
    error: str | None = None
    publishes_itself: bool = True
    judged: PublishedEntry = field(default_factory=lambda: PublishedEntry(0, 0, None, None))
    latency_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _due: bool = False
    _turns: int = 0  # calls that wait for the state
    _between: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while the state or a slot changes

    def __post_init__(self) -> None:
        self.supply = Supply(self.training, self.feed)

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.durable.steps

    async def begin(self) -> None:
        """Bring back what the journal holds; `tuned` is readable afterwards."""
        history = self.durable.history
        for entry in history.examples:
            self.feed.add(entry.step, self.checked(entry.rows))
        for step in range(self.step):
            self.feed.next(step)
        self.publishes_itself = history.served == max((entry.version for entry in history.published), default=0)
        newest = self.durable.newest()
        if newest is not None:
            await self.training("restore", str(self.durable.path), asdict(newest))
        start = newest.step if newest else 0
        await self.training("replay", start, [entry.losses for entry in history.steps[start:]])
        self.supply.facts = await self.training("facts")
        slot = self.ring.free()
        assert slot is not None
        await self._bring(slot, history.served)
        self.ring.switch(slot)
        self.judged = next((entry for entry in reversed(history.published) if entry.version == history.served), self.judged)
        if self.judged.loss is None:
            found = await self._judge(self.ring.fill(slot, history.served))
            self.judged = PublishedEntry(history.served, self.judged.step, *found)
        self.durable.forget()

    async def run(self) -> None:
        """Until it is cancelled. What breaks training stops it and is told; users are served on."""
        while True:
            await self.on.wait()
            try:
                await self._steps()
            except Exception as error:  # the server outlives whatever training runs into
                self.error = f"{type(error).__name__}: {error}"
                self.on.clear()
            await asyncio.sleep(0)

    def start(self) -> None:
        if self.total is not None and self.step >= self.total:
            raise Refused(f"all {self.total} steps are done; start the server with a larger --steps to go on")
        self.error = None
        self.on.set()

    async def stop(self) -> bool:
        """After the step that is under way; whether that is over yet: users may keep its probes waiting."""
        self.on.clear()
        self._ends.clear()
        with suppress(Refused):
            async with self._turn():
                return True
        return False

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Between two steps. Refused where the one under way does not end."""
        self._turns += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._between.acquire()
        except TimeoutError:
            raise Refused(WAITS) from None
        finally:
            self._turns -= 1
        try:
            yield
        finally:
            self._between.release()

    async def use(self, changed: dict[str, Any]) -> None:
        """Change policy, probe_tokens or slo; the others stay what they are. UsageError for what is not known."""
        wanted = self.admission | changed
        name, tokens, slo = wanted["policy"], wanted["probe_tokens"], wanted["slo"]
        if not (isinstance(name, str) and isinstance(slo, str)) or isinstance(tokens, bool):
            raise UsageError("policy and slo are texts, probe_tokens is a whole number")
        Policy.of(name, tokens, slo, self.options.round_tokens)
        await self.engine("zs_policy", name, tokens, slo)
        self.admission = wanted

    async def _steps(self) -> None:
        """Up to the next publication, or until training is stopped or somebody wants its state."""
        async with self._between:
            every = self.options.publish_every
            last = self.step + 1 if self._due else (self.step // every + 1) * every if every else math.inf
            last = min(last, math.inf if self.total is None else self.total)
            if self.step >= last:
                self.on.clear()
                return
            self._note()
            while self.supply.inside or (self._goes_on and self.step < last):
                if self._goes_on:
                    await self.supply.fill(self.step, last - self.step)
                else:
                    await self.supply.hold()
                self.error = await self.supply.fetch()
                self._note()
                if self.error:
                    self.on.clear()
                    return
            if every and self.step == last:
                self._due = self.publishes_itself
            if self._due:
                self._due = not await self._publish(always=self.options.publish_if == "always")

    @property
    def _goes_on(self) -> bool:
        return self.on.is_set() and not self._turns

    def _note(self) -> None:
        """Steps that are done into the journal."""
        while self.supply.done:
            done = self.supply.done[0]
            direction, rate = self.workload.plan(done.step)[0].direction, self.workload.rate(done.step)
            slopes, epoch = self.workload.projected_gradients(torch.tensor(done.losses)).tolist(), list(direction.epoch)
            self.durable.step(StepEntry(done.step, done.seconds, done.losses, slopes, False, self.spec.seed, epoch, rate))
            self._ends.append(done.end)
            self.supply.done.popleft()

    async def publish(self) -> PublishedEntry:
        """At once, whatever the dev split says. Refused where nothing was learned, or all slots are being read."""
        async with self._turn():
            if not self.step:
                raise Refused("nothing was learned yet; POST /training/start first")
            if not await self._publish(always=True):
                raise Refused(READ)
            self.publishes_itself = True
            return self.judged

    async def _publish(self, *, always: bool) -> bool:
        """Offer the state to the users; False where no slot is free, True also where the dev split says no."""
        begin = time.perf_counter()
        slot = self.ring.free()
        if slot is None:
            return False
        await self.training("publish", slot)
        version = 1 + max((entry.version for entry in self.durable.history.published), default=0)
        loss, accuracy = await self._judge(self.ring.fill(slot, version))
        good = always or self.judged.loss is None or loss <= self.judged.loss
        await self._save()
        if good:
            self.judged = PublishedEntry(version, self.step, loss, accuracy)
            self.durable.published(self.judged)
            self.ring.switch(slot)
            self.latency_s.append(time.perf_counter() - begin)
        else:
            self.ring.fill(slot, -1)
        self.durable.prune()
        return True

    async def rollback(self, version: int | None) -> PublishedEntry:
        """`tuned` is an earlier version again. Nothing is published by itself from then on, until somebody asks for it."""
        async with self._turn():
            entries = {0: PublishedEntry(0, 0, None, None)} | {e.version: e for e in self.durable.history.published}
            earlier = [number for number in entries if number < self.ring.version]
            wanted = max(earlier, default=None) if version is None else version
            if wanted is None or wanted not in entries:
                raise Refused(f"version {version}: was not published" if version is not None else "there is no earlier version")
            slot = self.ring.holds(wanted)
            if slot is None:
                slot = self.ring.free()
                if slot is None:
                    raise Refused(READ)
                await self._bring(slot, wanted)
            self.durable.served(wanted)
            self.ring.switch(slot)
            self.judged, self.publishes_itself, self._due = entries[wanted], False, False
            return self.judged

    async def post(self, rows: list[Any]) -> int:
        """Take in rows to train on; how many wait now. UsageError for bad ones, Refused where the queue is full."""
        examples: list[Example] = self.checked(rows)
        if len(self.feed.waiting) + len(examples) > self.feed.limit:
            raise Refused(f"{len(self.feed.waiting)} examples wait already, at most {self.feed.limit} may; try again later")
        entry = ExamplesEntry(self.step + max(1, self.supply.drawn), rows)
        self.durable.examples(entry)
        self.feed.add(entry.step, examples)
        return len(self.feed.waiting)

    async def facts(self) -> dict[str, Any]:
        """What GET /training answers."""
        last, ends, judged = self.durable.last, self._ends, self.judged
        rate = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 and self.on.is_set() else 0.0
        found, known = await self.engine("zs_facts"), self.supply.facts
        return {
            "training": self.on.is_set(),
            "step": self.step,
            "steps": self.total,
            "loss": sum(last.losses) / len(last.losses) if last else None,
            "losses": last.losses if last else None,
            "steps_per_s": rate,
            "share_of_capacity": found["admission"].pop("share"),
            "version": self.ring.version,
            "version_step": judged.step,
            "stale_steps": self.step - judged.step,
            "dev_loss": judged.loss,
            "dev_accuracy": judged.accuracy,
            "publish_s": list(self.latency_s)[-1] if self.latency_s else None,
            "publishes_itself": self.publishes_itself and bool(self.options.publish_every),
            "examples_waiting": len(self.feed.waiting),
            "readers": {str(slot): count for slot, count in self.ring.readers.items() if slot and count},
            "error": self.error,
            **found,
            **known,
            "memory_bytes": found["memory_bytes"] | known["memory_bytes"],
        }

    async def _judge(self, adapter: Any) -> tuple[float, float | None]:
        """Loss and score of a version on the dev split."""
        examples = (self.task.dev or self.task.eval)[: self.options.dev_examples]
        (scores,) = await option_logprobs(self.training, examples, [adapter])
        found = judge(self.task, examples, scores)
        if not math.isfinite(found.loss):
            raise ValueError(f"the dev loss after {self.step} steps is not finite; use a lower --learning-rate or --eps")
        return found.loss, found.score if found.scores else None

    async def _save(self) -> None:
        """A snapshot of the state as it stands, unless there is one."""
        if (newest := self.durable.newest()) and newest.step == self.step:
            return
        await self.training("save", str(self.durable.path), self.step)
        while (entry := await self.training("saved")) is None:
            await asyncio.sleep(POLL_S)
        self.durable.snapshot(entry)

    async def _bring(self, slot: int, version: int) -> None:
        """Write a published version into a slot that nobody reads."""
        if version == 0:
            await self.training("clear", slot)
        else:
            entry = self.durable.of_version(version)
            if entry is None:
                raise Refused(f"version {version}: its snapshot is not kept any more")
            await self.training("load", slot, str(self.durable.path), asdict(entry))
        self.ring.fill(slot, version)
