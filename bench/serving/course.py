"""Steps that are taken where the weights are, in the engine or in a process beside it: minibatches come in, losses go out.

The server's own process, which users wait for, sends minibatches ahead and reads losses now and then; it takes no part in a step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch

from bench.api import Probe, Workload
from bench.data import Batch, Example, Objective
from workloads.tasks.loss import batch_loss, ragged

MATRICES = 4
"""So many are compressed between two rounds."""
Adapter = tuple[str, int, str]
"""Name, vLLM's id, and path."""
Scores = list[list[list[float]]]
"""Mean log-prob of each option [states][examples][options]; for a classification by single tokens from passes: up to a constant
for each example."""


@dataclass(frozen=True)
class Done:
    """end: when, by time.perf_counter, which all processes of a machine share; seconds: it took, users in between included."""

    step: int
    end: float
    seconds: float
    losses: list[float]


class Scorer(Protocol):
    """Scores examples under the states of some adapters, when users leave room. Another asking gives the last one up."""

    def ask(self, examples: Batch, adapters: Sequence[Adapter]) -> None: ...

    def answers(self) -> Scores | None:
        """Once all are known; raises what the scoring ran into."""


class State(Protocol):
    """What steps move, and the slots that hold its probes; `bench.serving.worker.Trained`."""

    workload: Workload

    def apply(self, step: int, losses: list[float]) -> None: ...

    def prepare(self, step: int) -> int:
        """Write the probes of a step; where its columns do not hold the past, how many matrices have to be compressed before."""

    def compress(self, step: int, matrices: int) -> int:
        """How many are left."""

    def write_probes(self, probes: Sequence[Probe]) -> None: ...


class Course:
    """done: steps that nobody has asked for. adapters: of the probes."""

    def __init__(self, state: State, scorer: Scorer, objective: Objective, adapters: Sequence[Adapter]) -> None:
        self._state, self._scorer, self._objective, self._adapters = state, scorer, objective, adapters
        self.done: list[Done] = []
        self.error: str | None = None
        self.longest_compression_s = 0.0
        self._ahead: deque[tuple[int, Batch]] = deque()
        self._now: tuple[int, Batch] | None = None
        self._losses = torch.empty(0)
        self._undone: tuple[int, list[float]] | None = None
        self._left, self._began = 0, 0.0

    def add(self, first: int, batches: Iterable[Batch]) -> None:
        """Minibatches of steps from `first` on, which come after those that are known. What went wrong before is forgotten."""
        self.error = None
        self._ahead.extend(enumerate(batches, start=first))

    def hold(self) -> int:
        """Forget the minibatches whose steps have not begun; how many steps are under way, or over and not asked for."""
        self._ahead.clear()
        return (self._now is not None) + len(self.done)

    def take(self) -> list[Done]:
        done, self.done = self.done, []
        return done

    def settle(self) -> None:
        """Bring the state up to the last step that is done: its update is applied when the next one begins."""
        if self._undone is not None:
            step, losses = self._undone
            self._undone = None
            self._state.apply(step, losses)

    @property
    def waits(self) -> bool:
        """Whether a round would bring it on."""
        return self._now is not None or bool(self._ahead)

    @torch.inference_mode()
    def advance(self) -> bool:
        """One piece of work between two rounds: end a scoring that has its answers, compress a little, or begin a step. Whether
        there was one."""
        try:
            if self._now is not None:
                found = self._scorer.answers()
                return found is not None and self._scored(table(found))
            return bool(self._ahead) and self._begin()
        except Exception as error:  # the engine serves on, whatever training runs into
            self.error, self._now, self._left = f"{type(error).__name__}: {error}", None, 0
            self._ahead.clear()
            return True

    def _begin(self) -> bool:
        step, batch = self._ahead[0]
        begin = time.perf_counter()
        if self._left:
            self._left = self._state.compress(step, MATRICES)
            self.longest_compression_s = max(self.longest_compression_s, time.perf_counter() - begin)
            return True
        self.settle()
        self._left = self._state.prepare(step)
        if not self._left:
            self._ahead.popleft()
            self._now, self._losses, self._began = (step, batch), torch.empty(0), begin
            self._scorer.ask(batch, self._adapters[: len(self._state.workload.plan(step))])
        return True

    def _scored(self, scores: torch.Tensor) -> bool:
        assert self._now is not None
        (step, batch), first = self._now, not len(self._losses)
        self._losses = torch.cat([self._losses, batch_loss(self._objective, scores, batch)])
        more = self._state.workload.then(step, self._losses) if first else ()
        if more:
            self._state.write_probes(more)
            self._scorer.ask(batch, self._adapters[: len(more)])
            return True
        if not bool(torch.isfinite(self._losses).all()):
            raise ValueError(f"step {step}: a loss is not finite; stop, and use a lower --learning-rate or --eps")
        losses, end = self._losses.tolist(), time.perf_counter()
        self._now, self._undone = None, (step, losses)
        self.done.append(Done(step, end, end - self._began, losses))
        return True


def table(scores: Scores) -> torch.Tensor:
    """[states, examples, most options], float32; -inf where an example has fewer."""
    return ragged(torch.tensor([list(chain.from_iterable(state)) for state in scores]), torch.tensor([*map(len, scores[0])]))


def adapter_of(request: Any) -> Adapter:
    """What a request of vLLM's for an adapter says, as a message between processes."""
    return request.lora_name, request.lora_int_id, request.lora_path


def sent(examples: Batch) -> list[Any]:
    """Examples as a message between processes."""
    return [[list(e.prompt), [list(option) for option in e.options], e.label, list(e.scored)] for e in examples]


def received(message: list[Any]) -> Batch:
    return tuple(Example(tuple(p), tuple(map(tuple, options)), label, tuple(scored)) for p, options, label, scored in message)
