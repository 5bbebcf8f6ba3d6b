"""Tasks: where the examples come from and how they become token ids."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.data import Example, Metric, TaskData
from workloads.models.positions import positions
from workloads.models.tokenizer import load_tokenizer
from workloads.tasks.encode import joined_warning
from workloads.tasks.examples import Preparation, Prepared
from workloads.tasks.ragged import one_token
from workloads.tasks.reward import find_reward
from workloads.tasks.task import TaskOptions, make_task
from workloads.tasks.truncate import Limit, truncate, truncation_warning

if TYPE_CHECKING:
    from bench.data import ModelSource

MOST_TOKENS = 2048
"""Upstream cuts longer rows, whatever the model."""


def load_task(name: str, *, source: ModelSource, options: TaskOptions | None = None, **given: Any) -> TaskData:
    """The task's examples in the token ids of the source's model. given: fields of TaskOptions, for no `options`.

    A model without a tokenizer of its own (random weights from the table) gets opt-tiny's, whose ids every vocabulary holds.
    """
    options = options or TaskOptions(**given)
    task, codec = make_task(name, options), load_tokenizer(source)
    rows = task.read(options, offline=source.name == "opt-tiny" or codec.origin == "generated")
    prepare, targets_only = Preparation(task, codec), task.objective == "nll"
    splits = {
        "train": prepare.split(rows.train, [rows.common] * len(rows.train), target_only=targets_only),
        "dev": prepare.split(rows.dev, [rows.common] * len(rows.dev)),
        "eval": prepare.split(rows.eval, rows.own or [()] * len(rows.eval)),
    }
    longest = min(MOST_TOKENS, positions(source) or MOST_TOKENS)
    limit = Limit(longest, opening=len(codec.encode("")), room=task.answer_tokens)
    cut, counts = truncate({name: [prepared.example for prepared in split] for name, split in splits.items()}, limit)
    found = [prepared for split in splits.values() for prepared in split]
    examples = [example for split in cut.values() for example in split]
    exact = one_token(examples)
    reward = None if options.reward is None else find_reward(options.reward, task.metric)
    metric: Metric = task.metric if reward is None else "reward"
    warnings = [*rows.warnings, *truncation_warning(counts, longest), *_warnings(found)]
    summary = {
        "task": name,
        "version": task.version,
        "objective": task.objective,
        "metric": metric,
        "origin": rows.origin,
        "tokenizer": codec.origin,
        "rows_read": rows.read,
        "left_out": rows.left_out,
        "examples": {split: len(prepared) for split, prepared in splits.items()},
        "demonstrations": options.demonstrations,
        "truncated": counts,
        "prompt_tokens": spread([len(example.prompt) for example in cut["train"]]),
        "option_tokens": spread([len(ids) for example in cut["eval"] for ids in example.options]),
        "options": spread([len(example.options) for example in cut["eval"]]),
        "warnings": warnings,
    }
    stops = (*codec.end_ids, codec.encode("\n")[-1]) if task.answer_tokens else ()
    return TaskData(
        **cut,
        digest=_digest(examples),
        pad_id=codec.pad_id,
        max_tokens=max(len(e.prompt) + max(task.answer_tokens, *map(len, e.options)) for e in examples),
        single_token_options=exact,
        summary=summary,
        objective=task.objective,
        metric=metric,
        reward=reward,
        answer_tokens=task.answer_tokens,
        stop_ids=stops,
        decode=codec.decode,
        calibration=tuple(map(prepare.calibration, rows.eval)) if options.calibrate else (),
    )


def _digest(examples: Sequence[Example]) -> str:
    """Of everything that is scored or compared with."""
    parts = [(e.prompt, e.options, e.label, *e.scored, *filter(None, (e.right, e.references))) for e in examples]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def spread(counts: Sequence[int]) -> dict[str, float]:
    """Mean, median and the largest."""
    return {"mean": statistics.fmean(counts), "median": statistics.median(counts), "max": max(counts)}


def _warnings(found: Sequence[Prepared]) -> list[str]:
    """What the tokenizer does that a user may not expect."""
    joined = sum(prepared.encoded.joined for prepared in found)
    return [joined_warning(joined, len(found))] if joined else []
