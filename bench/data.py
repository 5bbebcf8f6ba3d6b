"""What a task hands to an executor and where a model's files are: plain facts, importing nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """One classification example as token ids: `prompt` (BOS included), one row of ids per answer option, the right one.

    scored   how many of each option's last ids are scored; empty: all of them
    """

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    label: int
    scored: tuple[int, ...] = ()

    def rows(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """For each option the whole row, and how many of its last ids are scored."""
        counts = self.scored or map(len, self.options)
        yield from ((self.prompt + option, count) for option, count in zip(self.options, counts, strict=True))


Batch = Sequence[Example]


@dataclass(frozen=True)
class TaskData:
    """A tokenised task. digest: of everything scored; max_tokens: longest prompt plus its longest option;
    single_token_options: whether every option is one token and every row is prompt + option exactly."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    eval: tuple[Example, ...]
    digest: str
    pad_id: int
    max_tokens: int
    single_token_options: bool
    summary: dict[str, Any]


@dataclass(frozen=True)
class ModelSource:
    """Where to load a model from. path: a local folder with config.json, and weights and tokenizer when pretrained."""

    name: str
    path: str
    weights: str
    trust_remote_code: bool = False
