"""How good a state is at a task: the task's metric over held-out examples, and its objective on the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.data import Example, Metric, TaskData
from workloads.tasks.loss import batch_loss
from workloads.tasks.metrics import OF_ANSWERS, correct


@dataclass(frozen=True)
class Judgement:
    """scores: every metric there is for the task's answers, by name; score: the task's own; error: its standard error."""

    score: float
    error: float
    loss: float
    scores: dict[Metric, float]


def judge(
    task: TaskData, examples: Sequence[Example], logprobs: torch.Tensor, answers: Sequence[Sequence[int]] | None = None
) -> Judgement:
    """Of mean option log-probs [n, most options], -inf where an example has fewer; and of the ids of generated answers.

    Answers are there where the task's `answer_tokens` is not 0.
    """
    of_each: dict[Metric, list[float]] = {}
    if answers is not None and task.decode is not None:
        texts = [task.decode(ids).strip() for ids in answers]
        for name, measure in OF_ANSWERS.items():
            of_each[name] = [measure(text, example.references) for text, example in zip(texts, examples, strict=True)]
    elif not task.answer_tokens:
        of_each["accuracy"] = correct(logprobs.argmax(1).tolist(), examples)
    scores = {name: sum(values) / len(values) for name, values in of_each.items()}
    loss = float(batch_loss(task.objective, logprobs, examples))
    own = of_each.get(task.metric, [])
    return Judgement(scores.get(task.metric, 0.0), _error(own), loss, scores)


def _error(values: Sequence[float]) -> float:
    """Standard error of a mean."""
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values)) / len(values)
