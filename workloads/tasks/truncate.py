"""Rows that are longer than a model's positions lose their beginning, as in the papers' code: never the question or an option.

Templates put the passage, and demonstrations before it, at the left. Source: arXiv 2305.17333's published code, which keeps BOS
and the last tokens of a row. It cuts each option's row by itself; here all rows of an example keep one prompt, cut for the
longest of its options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.data import Example
from bench.errors import UsageError

MULTIPLE = 8
"""The official loop pads rows to a multiple of this, which must be within the positions too."""


@dataclass(frozen=True)
class Limit:
    """positions: of the model; opening: tokens that begin every prompt (BOS) and stay; room: kept for a generated answer."""

    positions: int
    opening: int = 0
    room: int = 0

    def __call__(self, example: Example) -> Example:
        """The example itself if it fits, else without the beginning of its prompt."""
        most = self.positions - self.positions % MULTIPLE if self.positions > MULTIPLE else self.positions
        answer = max(self.room, *map(len, example.options))
        excess = len(example.prompt) + answer - most
        if excess <= 0:
            return example
        if len(example.prompt) - excess <= self.opening:
            raise UsageError(
                f"--model: it holds rows of {most} tokens, too few for an answer of {answer} tokens after a prompt; "
                "choose a model with more positions"
            )
        return replace(example, prompt=example.prompt[: self.opening] + example.prompt[self.opening + excess :])


def truncate(splits: dict[str, Sequence[Example]], limit: Limit) -> tuple[dict[str, tuple[Example, ...]], dict[str, int]]:
    """The examples of each split, and how many of each were cut."""
    cut = {name: tuple(map(limit, examples)) for name, examples in splits.items()}
    counts = {name: sum(a is not b for a, b in zip(cut[name], examples, strict=True)) for name, examples in splits.items()}
    return cut, counts


def truncation_warning(counts: dict[str, int], positions: int) -> list[str]:
    """One line where something was cut."""
    if not any(counts.values()):
        return []
    told = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
    return [f"prompts longer than the model's {positions} positions lost their beginning: {told}"]
