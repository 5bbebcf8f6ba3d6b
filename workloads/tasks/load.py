"""Tasks: where the examples come from and how they become token ids."""

from __future__ import annotations

import hashlib
import statistics
from typing import TYPE_CHECKING

from bench.data import Example, TaskData
from bench.registry import TASKS, known

if TYPE_CHECKING:
    from bench.data import ModelSource


def load_task(name: str, *, source: ModelSource, data: str | None = None, data_seed: int = 0) -> TaskData:
    """The task's examples in the token ids of the source's model.

    A model without a tokenizer of its own (random weights from the table) gets opt-tiny's, whose ids every vocabulary holds.
    """
    from workloads.models.tokenizer import load_tokenizer
    from workloads.tasks import sst2
    from workloads.tasks.encode import encode_options, joined_warning, length_warning
    from workloads.tasks.ragged import one_token

    known(TASKS, "--task", name)
    codec = load_tokenizer(source)
    *splits, origin = sst2.read(data, data_seed, offline=source.name == "opt-tiny" or codec.origin == "generated")
    warnings = (
        [] if origin != "generated" else ["sentences are generated, with SST-2's lengths; accuracy says nothing about SST-2"]
    )
    encoded = [[encode_options(codec.encode, sst2.prompt(text), sst2.OPTIONS) for text, _ in rows] for rows in splits]
    train, dev, held_out = (
        tuple(Example(e.prompt, e.options, label, e.scored) for e, (_, label) in zip(found, rows, strict=True))
        for found, rows in zip(encoded, splits, strict=True)
    )
    every = train + dev + held_out
    exact = one_token(every)
    if not exact:
        long = next(e for found in encoded for e in found if any(len(ids) > 1 for ids in e.options))
        warnings.append(length_warning(sst2.OPTIONS, long))
    joined = sum(e.joined for found in encoded for e in found)
    if joined:
        warnings.append(joined_warning(joined, len(every)))
    lengths = [len(example.prompt) for example in train]
    summary = {
        "task": name,
        "origin": origin,
        "tokenizer": codec.origin,
        "examples": {"train": len(train), "dev": len(dev), "eval": len(held_out)},
        "prompt_tokens": {"mean": statistics.fmean(lengths), "median": statistics.median(lengths), "max": max(lengths)},
        "warnings": warnings,
    }
    digest = hashlib.sha256(repr([(e.prompt, e.options, e.label, *e.scored) for e in every]).encode()).hexdigest()[:16]
    longest = max(len(e.prompt) + max(map(len, e.options)) for e in every)
    return TaskData(train, dev, held_out, digest, codec.pad_id, longest, exact, summary)
