"""How good a state is at a task: the task's metric over held-out examples, and its objective on the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.data import Example, Metric, TaskData
from workloads.tasks.loss import batch_loss
from workloads.tasks.metrics import OF_ANSWERS, correct
from workloads.tasks.reward import rewards


@dataclass(frozen=True)
class Judgement:
    """scores: every metric there is for the task's answers, by name; score: the task's own; error: its standard error."""

    score: float
    error: float
    loss: float
    scores: dict[Metric, float]


def judge(
    task: TaskData,
    examples: Sequence[Example],
    logprobs: torch.Tensor | None,
    answers: Sequence[Sequence[int]] | None = None,
    bare: torch.Tensor | None = None,
) -> Judgement:
    """Of mean option log-probs [n, most options], -inf where an example has fewer; and of the ids of generated answers.

    Answers are there where the task's `answer_tokens` is not 0. With a reward the loss is minus its mean, and log-probs are not
    wanted. bare: the log-probs of the task's `calibration` for these examples; the best option is then the one whose log-prob the
    prompt raises most.
    """
    of_each: dict[Metric, list[float]] = {}
    if answers is not None and task.decode is not None:
        texts = [task.decode(ids).strip() for ids in answers]
        for name, measure in OF_ANSWERS.items():
            of_each[name] = [measure(text, example.references) for text, example in zip(texts, examples, strict=True)]
        if task.reward is not None:
            of_each["reward"] = rewards(task, examples, answers)
    elif not task.answer_tokens and logprobs is not None:
        of_each["accuracy"] = correct(scores_of(task, examples, logprobs, bare).argmax(1).tolist(), examples)
    scores = {name: sum(values) / len(values) for name, values in of_each.items()}
    loss = -scores["reward"] if logprobs is None else float(batch_loss(task.objective, logprobs, examples))
    own = of_each.get(task.metric, [])
    return Judgement(scores.get(task.metric, 0.0), _error(own), loss, scores)


def scores_of(task: TaskData, examples: Sequence[Example], logprobs: torch.Tensor, bare: torch.Tensor | None) -> torch.Tensor:
    """What options are ranked by: their mean log-probs, or the sum's excess over that of the bare prompt.

    Source: surface form competition (arXiv 2104.08315), as upstream's code has it.
    """
    if bare is None:
        return logprobs
    sums = zip(_sums(examples, logprobs), _sums(task.calibration, bare), strict=True)
    return torch.nn.utils.rnn.pad_sequence([own - alone for own, alone in sums], batch_first=True, padding_value=-math.inf)


def _sums(examples: Sequence[Example], logprobs: torch.Tensor) -> list[torch.Tensor]:
    """Log-probs of whole options [options] of each example."""
    counts = [torch.tensor([scored for _, scored in example.rows()]) for example in examples]
    return [row[: len(count)] * count for row, count in zip(logprobs, counts, strict=True)]


def _error(values: Sequence[float]) -> float:
    """Standard error of a mean."""
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values)) / len(values)
