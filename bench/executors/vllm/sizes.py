"""How large the passes of a task get, and what one of them scores: by counting, before anything runs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from bench.config import RunSpec
from bench.data import Batch, ModelSource, Objective, TaskData
from bench.executors.vllm import engine
from bench.executors.vllm.packing import Reach
from bench.executors.vllm.requests import RequestWork
from workloads.directions import Layout
from workloads.models.room import Made, room, scored_share
from workloads.tasks.batches import sum_range
from workloads.tasks.ragged import full_rows, full_tokens, labels_only, tree_rows


def room_for(spec: RunSpec, source: ModelSource, task: TaskData, full: Layout) -> int:
    """Tokens that a forward has room for, where nobody has said how many. full: every parameter of the model."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    held = sum(math.prod(shape) for shape in full.values()) * dtype.itemsize
    return room(source, dtype, spec.device, Made(scored_share(task), keys=True), held)


def largest_forward(task: TaskData, probes: int, rows: int, most: int) -> int:
    """Tokens of the largest forward there may be: an example is never divided, however large it is. rows, most: bounds of the
    others."""
    alone = max(probes * max(full_tokens([e]) for e in task.train), *(full_tokens([e]) for e in (*task.dev, *task.eval)))
    return max(alone, min(rows * task.max_tokens, most))


def reach(task: TaskData, size: int) -> dict[str, Reach]:
    """What to expect of a minibatch of so many examples, by KV handling."""
    train, single = task.train, task.single_token_options
    shared = [len(e.prompt) if single else len(tree_rows([e], 1, engine.BLOCK).tokens) for e in train]
    whole = [sum(len(row) for row, _ in e.rows()) for e in train]
    options = max(len(e.options) for e in train)
    rows = size if single else size * options
    return {
        "shared": Reach(rows, *sum_range(shared, size), whole=single),
        "recompute": Reach(size * options, *sum_range(whole, size), whole=True),
    }


class Counts(NamedTuple):
    """How a worker's own passes are made. shares: in pieces of how many tokens rows share a prefix; cuts: whether the last layer
    runs for the wanted positions alone."""

    shares: int
    cuts: bool


def pass_work(
    spec: RunSpec, objective: Objective, vocabulary: int, batch: Batch, n: int, counts: Counts
) -> tuple[int, int, int, int, int]:
    """Of one pass over n states: tokens, rows, forwards (of a group of states), head rows, and tokens that take the last layer
    whole."""
    shared = spec.kv == "shared"
    if spec.loop == "resident":
        rows = tree_rows(batch, n, counts.shares) if shared else full_rows(batch, n)
        labels = shared and labels_only(batch, objective)
        head = len(rows.targets) if labels else len(rows.wanted) * vocabulary
        read = len(rows.wanted) if counts.cuts else len(rows.tokens)
        return len(rows.tokens), len(rows.lengths), 1, head, read
    asked = RequestWork.of(batch, shared)
    tokens, count = n * asked.tokens, n * asked.requests
    head = (count if asked.waves == 1 and shared else tokens) * vocabulary
    return tokens, count, asked.waves, head, tokens
