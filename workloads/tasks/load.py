"""Tasks: where the examples come from and how they become token ids."""

from __future__ import annotations

import hashlib
import statistics
from typing import TYPE_CHECKING, Any

from bench.data import Example, TaskData
from bench.registry import TASKS, known

if TYPE_CHECKING:
    from bench.data import ModelSource
    from workloads.tasks.sst2 import Rows


def load_task(name: str, *, source: ModelSource, data: str | None = None, data_seed: int = 0) -> TaskData:
    """The task's examples in the token ids of the source's model.

    A model without a tokenizer of its own (random weights from the table) gets opt-tiny's, whose ids every vocabulary holds.
    """
    from workloads.models.tokenizer import load_tokenizer
    from workloads.tasks import sst2

    known(TASKS, "--task", name)
    encode, pad_id, tokenizer = load_tokenizer(source)
    *splits, origin = sst2.read(data, data_seed, offline=source.name == "opt-tiny" or tokenizer == "generated")
    warnings = (
        [] if origin != "generated" else ["sentences are generated, with SST-2's lengths; accuracy says nothing about SST-2"]
    )
    single = all(len(encode(option, first=False)) == 1 for option in sst2.OPTIONS)
    train, dev, held_out = (_examples(rows, encode) for rows in splits)
    exact = single and all(_exact(text, encode) for text, _ in splits[0][:50])
    if not exact:
        warnings.append("an option is not a single token of this tokenizer: --kv shared falls back to recompute")
    every = train + dev + held_out
    lengths = [len(example.prompt) for example in train]
    summary = {
        "task": name,
        "origin": origin,
        "tokenizer": tokenizer,
        "examples": {"train": len(train), "dev": len(dev), "eval": len(held_out)},
        "prompt_tokens": {"mean": statistics.fmean(lengths), "median": statistics.median(lengths), "max": max(lengths)},
        "warnings": warnings,
    }
    digest = hashlib.sha256(repr([(e.prompt, e.options, e.label) for e in every]).encode()).hexdigest()[:16]
    longest = max(len(e.prompt) + max(map(len, e.options)) for e in every)
    return TaskData(train, dev, held_out, digest, pad_id, longest, exact, summary)


def _examples(rows: Rows, encode: Any) -> tuple[Example, ...]:
    from workloads.tasks import sst2

    options = tuple(encode(option, first=False) for option in sst2.OPTIONS)
    return tuple(Example(encode(sst2.prompt(text)), options, label) for text, label in rows)


def _exact(text: str, encode: Any) -> bool:
    """Whether tokenising prompt and option together gives the prompt's ids and then the option's."""
    from workloads.tasks import sst2

    start = encode(sst2.prompt(text))
    return all(encode(sst2.prompt(text) + option) == start + encode(option, first=False) for option in sst2.OPTIONS)
