"""The padded rows of the official loop: one row per answer option, left-padded."""

from __future__ import annotations

from typing import Any

import torch

from bench.data import Batch

MULTIPLE = 8


def places(batch: Batch, prompts: bool = False) -> int:
    """Tokens of the padded rows, padding included: of one row for each option, or of each prompt alone."""
    rows = len(batch) if prompts else sum(len(e.options) for e in batch)
    longest = max(len(e.prompt) + (0 if prompts else max(map(len, e.options))) for e in batch)
    return rows * (-(-longest // MULTIPLE) * MULTIPLE)


def option_rows(batch: Batch, pad_id: int, multiple: int = MULTIPLE) -> dict[str, Any]:
    """input_ids, attention_mask [rows, width] int64 (width a multiple of `multiple`); labels, option_len, num_options [rows].

    Rows of one example stand together; `labels` is the index of its right option, repeated on each of its rows.
    """
    rows = [(tokens, e.label, scored, len(e.options)) for e in batch for tokens, scored in e.rows()]
    width = -(-max(len(tokens) for tokens, *_ in rows) // multiple) * multiple
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros_like(ids)
    for i, (tokens, *_) in enumerate(rows):
        ids[i, width - len(tokens) :] = torch.tensor(tokens)
        mask[i, width - len(tokens) :] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": [label for _, label, _, _ in rows],
        "option_len": [length for _, _, length, _ in rows],
        "num_options": [count for _, _, _, count in rows],
    }
