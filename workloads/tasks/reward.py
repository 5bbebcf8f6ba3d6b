"""Rewards of generated text: with `--reward` a step raises their mean, in place of lowering a loss.

A reward is a function of your own, named `module:function` (of a module on the search path, or of a file in the working
directory). It is called as reward(prompt, text, example) for every answer and returns a number:
    prompt    what the model was given, special tokens left out
    text      what it answered greedily, up to and without the token that ended it, spaces stripped from its ends
    example   bench.data.Example: `references` are the answers in the data
`task` stands for the metric that the task's answers are judged by, F1 or exact match.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module, util
from pathlib import Path
from typing import Any

import torch

from bench.data import Batch, Example, Metric, Reward, TaskData
from bench.errors import UsageError
from workloads.tasks.metrics import OF_ANSWERS

OWN = "task"
Answers = Sequence[Sequence[int]]


def find_reward(name: str, metric: Metric) -> Reward:
    """The function of a name, checked at every call; UsageError when there is none. metric: of the task."""
    if name == OWN:
        measure = OF_ANSWERS[metric]
        return lambda prompt, text, example: measure(text, example.references)
    return _checked(name, _load(name))


def rewards(task: TaskData, examples: Batch, answers: Answers) -> list[float]:
    """Of the ids of one answer for each example. UsageError when the user's function fails or gives no number."""
    assert task.reward is not None and task.decode is not None
    texts = [(task.decode(example.prompt), task.decode(ids).strip()) for example, ids in zip(examples, answers, strict=True)]
    return [task.reward(prompt, text, example) for (prompt, text), example in zip(texts, examples, strict=True)]


def reward_losses(task: TaskData, batch: Batch, answers: Sequence[Answers]) -> torch.Tensor:
    """Minus the mean reward of each state's answers [n_states], float32 on the CPU: what a step lowers."""
    return torch.tensor([-math.fsum(rewards(task, batch, found)) / len(batch) for found in answers], dtype=torch.float32)


@dataclass(frozen=True)
class Answered:
    """What the answers of a step came to.

    lengths   tokens generated [states][examples], the ones that ended answers included
    rows      how many answers are generated in one batch, state after state
    padded    whether all rows of a batch run until the last has ended, prompts filled up to the longest
    """

    lengths: tuple[tuple[int, ...], ...]
    rows: int
    padded: bool = False

    @classmethod
    def of(cls, task: TaskData, answers: Sequence[Answers], rows: int, *, padded: bool = False) -> Answered:
        return cls(tuple(tuple(min(len(ids) + 1, task.answer_tokens) for ids in state) for state in answers), rows, padded)

    def __add__(self, more: Answered) -> Answered:
        return replace(more, lengths=self.lengths + more.lengths)

    @property
    def tokens(self) -> int:
        return sum(map(sum, self.lengths))

    def batches(self, batch: Batch) -> Iterator[tuple[list[Example], list[int]]]:
        """The examples that are answered together, and the lengths of their answers."""
        rows = [(example, length) for state in self.lengths for example, length in zip(batch, state, strict=True)]
        for start in range(0, len(rows), self.rows):
            examples, lengths = zip(*rows[start : start + self.rows], strict=True)
            yield [*examples], [*lengths]

    def work(self, batch: Batch, states: int, vocabulary: int) -> dict[str, int]:
        """Exact counts; before the first step those of one token for each answer.

        A pass makes one token of every answer of its batch that has not ended. An engine that takes a batch's prompts in several
        passes makes that many more.
        """
        if not self.lengths:
            return replace(self, lengths=((1,) * len(batch),) * states).work(batch, states, vocabulary)
        counts = dict.fromkeys(("forwards", "rows", "tokens_scored", "tokens_real", "head_rows"), 0)
        for examples, lengths in self.batches(batch):
            prompts, rows, longest = [len(example.prompt) for example in examples], len(examples), max(lengths)
            real, scored = sum(prompts) + sum(lengths) - rows, rows * (max(prompts) + longest - 1)
            made = rows * longest if self.padded else sum(lengths)
            found = (longest, rows, scored if self.padded else real, real, made * vocabulary)
            counts = {name: counts[name] + number for name, number in zip(counts, found, strict=True)}
        return counts


def _load(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise UsageError(f"--reward {name}: must be {OWN}, or module:function as in rewards:brevity")
    try:
        found = getattr(_module(module), attribute)
    except Exception as error:  # whatever their module raises
        raise UsageError(f"--reward {name}: cannot be imported ({_said(error)}); mend it, or give module:function") from None
    if not callable(found):
        raise UsageError(f"--reward {name}: is no function but {type(found).__name__}; give module:function")
    function: Callable[..., Any] = found
    return function


def _module(name: str) -> Any:
    """By the search path; or else a file of that name in the working directory, which is not on it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        path = Path(*name.split(".")).with_suffix(".py")
        if error.name is None or not (name + ".").startswith(error.name + ".") or not path.is_file():
            raise
    spec = util.spec_from_file_location(name, path.absolute())
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _checked(name: str, function: Callable[..., Any]) -> Reward:
    def reward(prompt: str, text: str, example: Example) -> float:
        try:
            value = float(function(prompt, text, example))
        except Exception as error:  # whatever their function raises
            raise UsageError(f"--reward {name}: failed on the answer {text[:40]!r} ({_said(error)}); mend the function") from None
        if not math.isfinite(value):
            raise UsageError(f"--reward {name}: gave {value} for the answer {text[:40]!r}; it must return a finite number")
        return value

    return reward


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
