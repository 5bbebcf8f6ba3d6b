"""Minibatches: the task's own, in the order of every executor, and rows that users posted while the server was running.

What waits comes first, up to half a minibatch; afterwards a posted row is drawn as often as any other. A minibatch depends on the
seed, the step and what was posted before that step, so that a server that was killed goes on with the same ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from bench.data import Batch, Example, ModelSource, TaskData
from bench.errors import UsageError
from workloads.models.tokenizer import load_tokenizer
from workloads.rows.table import Row, Table
from workloads.tasks.batches import batch_stream
from workloads.tasks.examples import Preparation
from workloads.tasks.ragged import one_token
from workloads.tasks.task import TaskOptions, make_task


class Feed:
    """limit: posted rows that may wait, and that are remembered once they were used."""

    def __init__(self, train: Sequence[Example], size: int, seed: int, limit: int) -> None:
        self._stream, self._size, self._rows, self.limit = batch_stream(train, size, seed), size, len(train), limit
        self.waiting: deque[tuple[int, Example]] = deque()
        self._used: deque[Example] = deque(maxlen=limit)

    def add(self, step: int, examples: Sequence[Example]) -> None:
        """From this step on."""
        self.waiting.extend((step, example) for example in examples)

    def next(self, step: int) -> Batch:
        """The minibatch of a step; steps are asked for in order, each once."""
        own = next(self._stream)
        most, posted = len(own) // 2, list[Example]()
        share = most and len(own) * len(self._used) // (len(self._used) + self._rows)
        for _ in range(min(share, most)):
            posted.append(self._used.popleft())
            self._used.append(posted[-1])
        while self.waiting and self.waiting[0][0] <= step and len(posted) < max(most, 1):
            posted.append(self.waiting.popleft()[1])
            self._used.append(posted[-1])
        return (*own[: len(own) - len(posted)], *posted)


class Checked:
    """Turns posted rows into examples as the task reads its own; UsageError in one line for what cannot be one."""

    def __init__(self, name: str, options: TaskOptions, source: ModelSource, task: TaskData, longest: int) -> None:
        self._task: Any = make_task(name, options)
        self._prepare, self._data, self._longest = Preparation(self._task, load_tokenizer(source)), task, longest
        self._shown = options.demonstrations

    def __call__(self, rows: Sequence[Any]) -> list[Example]:
        if self._shown:
            raise UsageError("examples: this server shows demonstrations before every prompt, and takes no further examples")
        if not hasattr(self._task, "clean"):
            raise UsageError(f"examples: the task {self._task.name} reads no rows, and takes none")
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise UsageError(f"examples: number {number} is no object of columns; expected {', '.join(self._task.columns)}")
        try:
            table = Table(tuple(Row(row, "examples", number) for number, row in enumerate(rows, start=1)))
            cleaned = self._task.clean(table)
        except UsageError as error:
            raise UsageError(str(error).removeprefix("--data ")) from None
        nothing: list[list[Any]] = [[]] * len(cleaned)
        target_only = self._data.objective == "nll"
        found = [made.example for made in self._prepare.split(cleaned, nothing, target_only=target_only)]
        for number, example in enumerate(found, start=1):
            length = len(example.prompt) + max(map(len, example.options))
            if length > self._longest:
                raise UsageError(f"examples: number {number} has {length} tokens; at most {self._longest} fit")
        if self._data.single_token_options and not one_token(found):
            raise UsageError("examples: the task's answers are single tokens, one of these is not")
        return found
