"""vLLM's scheduler with users before probes: probes are held back here and let into a round by the admission policy.

A policy that says 0 is obeyed in the very round that begins. Probes leave no trace in the prefix cache: their blocks are never
named, and vLLM reuses nameless blocks first, so users' cached blocks stay.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from bench.serving.admission import Admission, Policy
from bench.serving.course import Course
from bench.serving.process import Process
from bench.serving.questions import PREFIX, Questions

ROUNDS = 512
"""How many rounds back facts look."""


class UsersFirst(Scheduler):
    """In the engine's process, where the worker finds it by `current`."""

    current: ClassVar[UsersFirst | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: dict[str, Request] = {}
        self.inside: dict[str, Request] = {}  # probes that were let in
        self.awaiting: dict[str, list[float]] = {}  # users without a first token -> [came at, seconds that probes added]
        self.admission = Admission(Policy.of("none", 1, "ttft_p99=+15%", self.max_num_scheduled_tokens))
        self.rounds: deque[tuple[float, float, float]] = deque(maxlen=ROUNDS)  # begin, end, share of probes
        self.cache_probes = False
        self.questions = Questions(self.hold)
        self.course: Course | None = None  # where probes are requests
        self.process: Process | None = None  # where they are not
        self._slower, self._decodes = 0.0, False  # share of the round's time that the process beside it costs; nobody waits
        self._begin, self._since = 0.0, (0.0, 0.0)
        coordinator: Any = self.kv_cache_manager.coordinator
        name_blocks = coordinator.cache_blocks

        def of_users(request: Request, *more: Any) -> None:
            if self.cache_probes or not request.request_id.startswith(PREFIX):
                name_blocks(request, *more)

        coordinator.cache_blocks = of_users
        UsersFirst.current = self

    def use(self, policy: Policy) -> None:
        """From the next round on, with a fresh view of the users' times."""
        self.admission = Admission(policy, self.process is not None, last_user=self.admission.last_user)
        self.rounds.clear()
        self._since = time.time(), self.process.seconds() if self.process is not None else 0.0

    def hold(self, probes: Iterable[Request]) -> None:
        """Hold probes back until rounds have room for them. Those of before are given up."""
        old = [name for name in self.requests if name.startswith(PREFIX)]
        self.finish_requests(old, RequestStatus.FINISHED_ABORTED)
        self.questions.hasher = self._hasher() if self.cache_probes else None
        for request in probes:
            self.add_request(request)

    def _hasher(self) -> Any:
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher

        return get_request_block_hasher(self.block_size, get_hash_fn_by_name(self.cache_config.prefix_caching_hash_algo))

    def took(self, begin: float, end: float) -> None:
        """Between two rounds training kept the engine busy: who waited meanwhile waited for it."""
        self.rounds.append((begin, end, 1.0))
        for waited in self.awaiting.values():
            waited[1] += max(0.0, end - max(begin, waited[0]))

    def add_request(self, request: Request) -> None:
        if request.request_id.startswith(PREFIX):
            self.held[request.request_id] = self.requests[request.request_id] = request
            return
        super().add_request(request)
        came, added = request.arrival_time, 0.0
        for begin, end, share in reversed(self.rounds):
            if end <= came:
                break
            added += min(end - came, (end - begin) * share)  # it came before that was over
        self.awaiting[request.request_id] = [came, added]

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        self.inside = {name: request for name, request in self.inside.items() if name in self.requests}
        users = len(self.requests) - len(self.held) - len(self.inside)
        self._begin = time.time()
        allowed = self.admission.allowed(self._begin, len(self.awaiting), users)
        if self.process is not None:
            self.process.allow(allowed) if users else self.process.free()
            self._slower = self.admission.slowdown.share() if self.process.runs else 0.0
            self._decodes = bool(users) and not self.awaiting
        elif allowed and self.course is not None and self.course.advance():
            begin, self._begin = self._begin, time.time()
            self.took(begin, self._begin)
        used = sum(request.num_tokens for request in self.inside.values())
        while self.held:
            name, request = next(iter(self.held.items()))
            alone = not users and not self.inside  # with nobody else there one always goes in: the engine has to move on
            if used + request.num_tokens > allowed and not alone:
                break
            used += request.num_tokens
            del self.held[name]
            self.inside[name] = request
            self._enqueue_waiting_request(request)
        return super().schedule(*args, **kwargs)

    def update_from_output(self, scheduled: SchedulerOutput, *args: Any) -> Any:
        begin, before = self._begin, dict(self.requests)
        outputs = super().update_from_output(scheduled, *args)
        for found in outputs.values():
            for output in found.outputs:
                if output.request_id.startswith(PREFIX):
                    self.questions.note(output)
            found.outputs = [output for output in found.outputs if not output.request_id.startswith(PREFIX)]
        tokens, end = scheduled.num_scheduled_tokens, time.time()
        if not tokens:
            return outputs
        if self.process is None:
            share = sum(count for name, count in tokens.items() if name in self.inside) / sum(tokens.values())
        else:
            share = self._slower
            if self._decodes:
                self.admission.slowdown.note(end - begin, beside=self.process.runs)
            self._leave()
        self.rounds.append((begin, end, share))
        for name, (came, added) in list(self.awaiting.items()):
            added += (end - begin) * share if came <= begin else 0.0
            self.awaiting[name][1] = added
            request = before.get(name)
            if request is None or request.num_output_tokens or request.is_finished():
                del self.awaiting[name]
                if request is not None and request.num_output_tokens:
                    self.admission.first_token(end - came, added)
        return outputs

    def finish_requests(self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus) -> list[Request]:
        names = [request_ids] if isinstance(request_ids, str) else None if request_ids is None else list(request_ids)
        for name in list(self.requests) if names is None else names:
            self.held.pop(name, None)
            self.awaiting.pop(name, None)
        finished = super().finish_requests(names, finished_status)
        self._leave()
        return finished

    def _leave(self) -> None:
        """No further round may come: with nobody there training runs."""
        if self.process is not None and not self.requests:
            self.process.free()

    def get_num_unfinished_requests(self) -> int:
        steps = self.course is not None and self.course.waits
        return super().get_num_unfinished_requests() + len(self.held) + steps

    def facts(self) -> dict[str, Any]:
        """share: of the last rounds' wall clock, what went into probes; of a process beside them, the share of a core that it has
        had since the policy was set."""
        spent = sum((end - begin) * share for begin, end, share in self.rounds)
        wall = self.rounds[-1][1] - self.rounds[0][0] if self.rounds else 0.0
        if self.process is not None:
            spent, wall = self.process.seconds() - self._since[1], time.time() - self._since[0]
        inside = sum(name in self.requests for name in self.inside)
        return self.admission.facts() | {
            "share": spent / wall if wall else 0.0,
            "held": len(self.held),
            "inside": inside,
            "users": len(self.requests) - len(self.held) - inside,
            "free_blocks": self.kv_cache_manager.block_pool.get_num_free_blocks(),
        }
