"""Who is given what: the driver's side of the replicas.

A step goes out in one message to each free replica, with the losses that are new to it; the first answer for an item counts. What
is overdue is given to a free replica again: a straggler and one that was killed look the same from here. Ray starts a killed one
again and repeats its message, to which it answers that it stands at the beginning; it is then brought up to date from the log.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench.executors.replicated.checksums import Checksums
from bench.executors.replicated.log import Log
from bench.executors.replicated.members import Call, Member, Timing
from bench.executors.replicated.replica import UNLOADED, Answer

TICK_S, LOOK_S, GRACE_S, LOAD_S = 1.0, 1.0, 1.0, 1800.0
INLINE = 64
"""Entries that travel with a message of work; who lacks more catches up apart, and delays nobody."""
SLOW, SLACK_S, FIRST_S = 3.0, 0.05, 5.0
"""An item is overdue after SLOW times the usual seconds and SLACK_S; before anything is usual, after FIRST_S."""
HOPELESS = 5
"""Restarts in a row without an answer after which a replica is given up."""


class Pool:
    """start: makes the actor of a number; given: a reference to what it loads from; wanted: how many (None: as many as there is
    room for)."""

    def __init__(
        self,
        start: Callable[[int], Any],
        given: Any,
        log: Log,
        room: Callable[[], int],
        wanted: int | None,
        timeout_s: float,
    ) -> None:
        import ray

        self._ray: Any = ray
        self._start, self._given, self._room = start, given, room
        self.wanted, self.timeout_s = wanted, timeout_s
        self.log, self.members, self.checksums = log, list[Member](), Checksums()
        self.limit: int | None = None
        self.restarts = self.joined_late = self.repeats = 0
        self.timings: deque[Timing] = deque(maxlen=10_000)
        self._run, self._looked, self._usual = 0, 0.0, deque[float](maxlen=50)

    def open(self) -> None:
        """Start the replicas and wait until they have loaded the model."""
        count = self.wanted if self.wanted is not None else max(1, self._room())
        for _ in range(count):
            self._add()
        self._until(lambda: all(m.position is not None or m.lost for m in self.members), "the replicas load", LOAD_S)

    def run(self, task: Any, items: Sequence[Any]) -> list[Any]:
        """The result of every item, in order."""
        self._run += 1
        began, found = time.perf_counter(), dict[int, Any]()
        todo, answers, sent = deque(range(len(items))), list[tuple[float, float]](), 0
        self._grow()
        heard = time.monotonic()
        while len(found) < len(items):
            sent += self._give(task, items, todo, found)
            for member, call, answer in self._hear(self._patience(found)):
                heard = time.monotonic()
                if call.kind != "work" or call.run != self._run:
                    continue
                if answer is None or answer.value is None:
                    todo.extend(index for index in call.items if index not in found and index not in todo)
                    continue
                self._usual.append((answer.apply_s + answer.work_s) / len(call.items))
                if any(index not in found for index in call.items):
                    answers.append((answer.apply_s, answer.work_s))
                    sent += len(pickle.dumps(answer, -1))
                for index, value in zip(call.items, answer.value, strict=True):
                    found.setdefault(index, value)
                member.failures = 0
            self._alive()
            if time.monotonic() - heard > self.timeout_s:
                self._give_up(f"{len(items) - len(found)} of {len(items)} items of a step")
            self._put_right()
        self.timings.append(Timing(task[0], time.perf_counter() - began, answers, sent))
        return [found[index] for index in range(len(items))]

    def ask(self, name: str, *arguments: Any, of: int | None = None) -> Any:
        """Call a method of a replica's executor (default: of the first that is free) at the newest state."""
        return self._asked(name, *arguments, of=of)[0].value[0]

    def snapshot(self) -> Any:
        """Of the newest state; whoever starts later begins with it."""
        answer, reference = self._asked("snapshot")
        self.log.took(answer.position, reference)
        return answer.value[0]

    def settle(self) -> None:
        """Wait until nobody is busy any more."""
        self._until(lambda: all(m.call is None or m.lost for m in self.members), "the replicas finish what they do")

    def rest(self) -> None:
        """Hear for a moment what there is, and take in who has room, between two runs."""
        self._grow()
        self._hear(TICK_S / 4)

    def each(self, method: str, *arguments: Any) -> None:
        """Call a method of every replica, outside the log, when nobody is busy."""
        self.settle()
        self._ray.get([getattr(m.actor, method).remote(*arguments) for m in self.members if not m.lost], timeout=self.timeout_s)

    def close(self) -> None:
        if closing := [m.actor.close.options(max_task_retries=0).remote() for m in self.members if not m.lost and m.call is None]:
            self._ray.wait(closing, num_returns=len(closing), timeout=GRACE_S)
        for member in self.members:
            self._ray.kill(member.actor, no_restart=True)
        self.members.clear()

    @property
    def present(self) -> list[Member]:
        return [member for member in self.members if not member.lost and member.position is not None]

    def _add(self) -> None:
        member = Member(len(self.members), self._start(len(self.members)))
        self._load(member)
        self.members.append(member)

    def _load(self, member: Member) -> None:
        member.position, member.call = None, Call(member.actor.load.remote(self._given), "load")

    def _grow(self) -> None:
        """Where the cluster has got room, one more replica; it loads and catches up while the others go on."""
        if self.wanted is None and time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            if all(member.position is not None or member.lost for member in self.members) and self._room() > 0:
                self._add()
                self.joined_late += 1

    def _give(self, task: Any, items: Sequence[Any], todo: deque[int], found: dict[int, Any]) -> int:
        """Work to whoever is free; bytes sent."""
        free, sent = [m for m in self.members if m.free][: self.limit], 0
        for at, member in enumerate(free):
            if self._far_behind(member):
                self._bring(member)
                continue
            if todo:
                share = -(-len(todo) // (len(free) - at))
                chosen = tuple(todo.popleft() for _ in range(share))
            elif overdue := self._overdue(found):
                overdue.repeated = True
                self.repeats += 1
                chosen = tuple(index for index in overdue.items if index not in found)
            else:
                break
            assert member.position is not None
            message = (member.position, self.log.since(member.position), task, [items[index] for index in chosen])
            sent += len(pickle.dumps(message, -1))
            member.call = Call(member.actor.work.remote(*message), "work", self._run, chosen)
        return sent

    def _overdue(self, found: dict[int, Any]) -> Call | None:
        """The call of this run that has been under way longest, if that is too long and nobody repeats it yet."""
        calls = [m.call for m in self.members if m.call and m.call.kind == "work" and m.call.run == self._run]
        late = [c for c in calls if not c.repeated and self._late(c) <= 0 and any(index not in found for index in c.items)]
        return min(late, key=lambda call: call.sent, default=None)

    def _late(self, call: Call) -> float:
        """Seconds until a call is overdue."""
        usual = SLOW * median(self._usual) * len(call.items) + SLACK_S if len(self._usual) >= 3 else FIRST_S
        return call.sent + usual - time.monotonic()

    def _patience(self, found: dict[int, Any]) -> float:
        """How long to wait for answers before looking again whether something is overdue."""
        if not any(member.free for member in self.members):
            return TICK_S
        calls = [m.call for m in self.members if m.call and m.call.kind == "work" and not m.call.repeated]
        return max(0.001, min([TICK_S, *map(self._late, calls)]))

    def _far_behind(self, member: Member) -> bool:
        position = member.position or 0
        return self.log.start(position)[1] is not None or self.log.end - position > INLINE

    def _bring(self, member: Member) -> None:
        """Bring a replica to where the log ends."""
        start, snapshot = self.log.start(member.position or 0)
        member.call = Call(member.actor.catch_up.remote(start, snapshot, self.log.since(start)), "catch up")

    def _hear(self, wait_s: float) -> list[tuple[Member, Call, Answer | None]]:
        """Answers that have come, at least one unless the time is up; None for a call that brought none."""
        under_way = {m.call.reference: m for m in self.members if m.call and not m.lost}
        if not under_way:
            time.sleep(min(wait_s, 0.01))
            return []
        ready, _ = self._ray.wait(list(under_way), num_returns=1, timeout=wait_s)
        more, _ = self._ray.wait(list(under_way), num_returns=len(under_way), timeout=0) if len(under_way) > 1 else (ready, [])
        heard = []
        for reference in more or ready:
            member = under_way[reference]
            call, member.call = member.call, None
            assert call is not None
            heard.append((member, call, self._answer(member, call, reference)))
        return heard

    def _answer(self, member: Member, call: Call, reference: Any) -> Answer | None:
        try:
            answer: Answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except self._ray.exceptions.ObjectLostError:  # the snapshot went with the machine that held it
            self.log.lost_snapshot()
            return None
        except (self._ray.exceptions.ActorUnavailableError, self._ray.exceptions.GetTimeoutError):
            self._load(member)
            return None
        except self._ray.exceptions.RayActorError as error:
            member.lost = " ".join(str(error).split())[:300]
            return None
        if member.process not in (None, answer.process):
            self.restarts += 1
            member.failures += 1
            if member.failures >= HOPELESS:
                member.lost = f"it died {HOPELESS} times in a row without an answer; see whether its machine has the memory"
                self._ray.kill(member.actor, no_restart=True)
                return None
        member.process, member.position = answer.process, answer.position
        if answer.position == UNLOADED:
            self._load(member)
        if call.kind == "load":
            member.node = answer.value
        for position, value in answer.sums:
            self.checksums.add(position, member.number, value)
        return answer

    def _put_right(self) -> None:
        """Replicas whose state differs from that of most others get theirs."""
        for number in self.checksums.astray():
            member = self.members[number]
            member.astray = True
            right = next((m for m in self.members if m.free and m.number != number), None)
            if right is None or member.call is not None or right.position is None:
                continue  # both will be free some time
            reference = right.actor.ask.remote(right.position, self.log.since(right.position), "snapshot")
            try:
                answer: Answer | None = self._ray.get(reference, timeout=self.timeout_s)
            except self._ray.exceptions.RayError:
                answer = None
            if answer is None or answer.value is None:  # it died just now: another time
                self._load(right)
                continue
            right.position = answer.position
            member.call = Call(member.actor.catch_up.remote(answer.position, reference, []), "catch up")
            member.astray = False
            self.checksums.settled(number)

    def _asked(self, name: str, *arguments: Any, of: int | None = None) -> tuple[Answer, Any]:
        deadline = time.monotonic() + self.timeout_s
        while True:
            lead = next((m for m in self.members if m.free and of in (None, m.number)), None)
            if lead is not None and self._far_behind(lead):
                self._bring(lead)
            elif lead is not None:
                assert lead.position is not None
                reference = lead.actor.ask.remote(lead.position, self.log.since(lead.position), name, *arguments)
                lead.call = Call(reference, "ask")
                while lead.call is not None and lead.call.reference is reference and time.monotonic() < deadline:
                    for member, call, answer in self._hear(TICK_S):
                        if member is lead and call.reference is reference and answer is not None and answer.value is not None:
                            return answer, reference
            else:
                self._hear(TICK_S)
            self._alive()
            if time.monotonic() > deadline:
                self._give_up(f"the call of {name}")

    def _until(self, done: Callable[[], bool], what: str, least_s: float = 0.0) -> None:
        deadline = time.monotonic() + max(self.timeout_s, least_s)
        while not done():
            self._hear(TICK_S)
            self._alive()
            if time.monotonic() > deadline:
                self._give_up(what)

    def _alive(self) -> None:
        if all(member.lost for member in self.members):
            raise RuntimeError(f"every replica is gone: {self.members[-1].lost if self.members else 'none was started'}")

    def _give_up(self, what: str) -> None:
        silent = ", ".join(str(m.number) for m in self.members if m.call is not None and not m.lost)
        raise TimeoutError(
            f"{what}: no answer from replica {silent or '-'} for {self.timeout_s:g} s; see whether its machine is up and the "
            "cluster has room for it (ray status), raise --replica-timeout, or go on with fewer --replicas and --resume"
        )
