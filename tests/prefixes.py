"""Tasks whose answers are several tokens long and whose prompts have much in common, and their losses in plain float64 loops."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch

from bench.api import Probe
from bench.data import Batch, Example, ModelSource, TaskData
from workloads.directions import draw
from workloads.models.scope import layout
from workloads.models.weights import load_model

BLOCK = 16


def long_task(seed: int = 0) -> TaskData:
    """Six examples over common demonstrations of 19 tokens; 2 to 4 options of 1 to 5 tokens; prompts that end on a block's border
    and one token beyond it."""
    draw_ = random.Random(seed)

    def words(n: int) -> tuple[int, ...]:
        return tuple(draw_.randrange(10, 300) for _ in range(n))

    common, examples = (0, *words(18)), []
    for length in (2 * BLOCK, 2 * BLOCK + 1, 22, 25, 27, 40):
        prompt = common + words(length - len(common))
        options = tuple(words(draw_.randint(1, 5)) for _ in range(draw_.randint(2, 4)))
        options += (options[0][:1] + words(2),)  # one that begins as another does
        examples.append(Example(prompt, options, draw_.randrange(len(options))))
    longest = max(len(row) for e in examples for row, _ in e.rows())
    batch = tuple(examples)
    return TaskData(batch, (), batch, "prefixes", 1, longest + 8, False, {}, answer_tokens=8, stop_ids=(2,))


def target_task() -> TaskData:
    """The same prompts, each with the option to train towards alone, for the objective nll."""
    task = long_task()
    targets = tuple(replace(e, options=(e.options[e.label],), label=0) for e in task.train)
    return replace(task, train=targets, eval=targets, objective="nll")


@torch.inference_mode()
def plain_scores(source: ModelSource, batch: Batch, probe: Probe) -> list[list[float]]:
    """Mean log-prob of every option under one probe, float64, one row at a time."""
    model: Any = load_model(source, torch.float32, "cpu").double()
    names = layout(model, "lora")
    drawn = draw(probe.direction, names, "cpu")
    for name in names:
        model.get_parameter(name).add_(drawn.delta(name).double(), alpha=probe.shift)
    found = []
    for example in batch:
        scores = []
        for row, scored in example.rows():
            logprobs = model(torch.tensor([row])).logits[0].log_softmax(-1)
            at = range(len(row) - scored, len(row))
            scores.append(sum(float(logprobs[i - 1, row[i]]) for i in at) / scored)
        found.append(scores)
    return found


def plain_loss(scores: list[list[float]], batch: Batch, objective: str) -> float:
    if objective == "nll":
        lengths = [len(e.options[e.label]) for e in batch]
        total = sum(scores[i][e.label] * lengths[i] for i, e in enumerate(batch))
        return -total / sum(lengths)
    losses = []
    for given, example in zip(scores, batch, strict=True):
        wide = torch.tensor(given, dtype=torch.float64)
        losses.append(float(wide.logsumexp(0) - wide[example.label]))
    return sum(losses) / len(losses)
