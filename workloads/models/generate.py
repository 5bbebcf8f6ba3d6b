"""Greedy answers by a Hugging Face model: what the executors that hold one share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch

from bench.data import Batch, TaskData


@torch.inference_mode()
def greedy(
    model: Any, examples: Batch, task: TaskData, rows: int, tokens: int, *, exactly: int | None = None
) -> list[tuple[int, ...]]:
    """For each prompt the ids up to the first stop token, at most the task's `answer_tokens`; `rows` prompts at a time, fewer
    where they and their answers may come to more than `tokens`.

    exactly: so many ids instead, whatever they are.
    """
    rows, stops = rows_at_once(task, rows, tokens), () if exactly else task.stop_ids
    device = next(model.parameters()).device
    found: list[tuple[int, ...]] = []
    for part in _parts(examples, rows):
        width = max(len(example.prompt) for example in part)
        ids = torch.full((len(part), width), task.pad_id)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(part):
            ids[row, width - len(example.prompt) :] = torch.tensor(example.prompt)
            mask[row, width - len(example.prompt) :] = 1
        out = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=exactly or task.answer_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=list(stops) or None,
            pad_token_id=task.pad_id,
        )
        found += [up_to(row, stops) for row in out[:, width:].tolist()]
    return found


def rows_at_once(task: TaskData, rows: int, tokens: int) -> int:
    """So many of these rows may stand in one batch."""
    return max(1, min(rows, tokens // task.max_tokens))


def up_to(ids: Sequence[int], stop_ids: Sequence[int]) -> tuple[int, ...]:
    """An answer without the token that ended it and what follows."""
    return tuple(takewhile(lambda token: token not in stop_ids, ids))


def _parts(examples: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(examples), size):
        yield examples[start : start + size]
