"""From a row to token ids, as the published protocol writes it.

Upstream strips spaces (only spaces) around prompt and row, and puts demonstrations, with an empty line after each, before both.
Source: arXiv 2305.17333's and 2410.07698's published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.data import Example
from bench.errors import UsageError
from workloads.tasks.encode import Encoded, encode_options
from workloads.tasks.task import Row, Task

if TYPE_CHECKING:
    from workloads.models.tokenizer import TextCodec

BETWEEN = "\n\n"


@dataclass(frozen=True)
class Prepared:
    """An example, the texts of its options, and what was found out while they were encoded."""

    example: Example
    options: Sequence[str]
    encoded: Encoded


@dataclass(frozen=True)
class Preparation:
    task: Task
    codec: TextCodec

    def split(self, rows: Sequence[Row], shown: Sequence[Sequence[Row]], *, target_only: bool = False) -> list[Prepared]:
        """The rows of a split, each after its demonstrations. target_only: of the options, the one to train towards."""
        before = {id(rows): self.demonstrations(rows) for rows in shown}
        return [self.example(row, before[id(s)], target_only) for row, s in zip(rows, shown, strict=True)]

    def demonstrations(self, rows: Sequence[Row]) -> str:
        """Rows with their right answers, as they stand before a prompt."""
        task = self.task
        return "".join((task.prompt(row) + task.options(row)[task.right(row)[0]]).strip() + BETWEEN for row in rows)

    def example(self, row: Row, before: str = "", target_only: bool = False) -> Prepared:
        prompt, options, right = self.task.prompt(row), tuple(self.task.options(row)), self.task.right(row)
        wanted = [options[number] for number in right]  # by their texts: an option that is there twice is right twice
        options = tuple(wanted[:1]) if target_only else options
        text, by_words = (before + prompt.strip(" ")).lstrip(), self.codec.by_words
        encoded = encode_options(self.codec.encode, text, _stripped(prompt, options), by_words=by_words)
        label, all_right = options.index(wanted[0]), tuple(n for n, option in enumerate(options) if option in wanted)
        example = Example(
            prompt=encoded.prompt,
            options=encoded.options,
            label=label,
            scored=encoded.scored,
            right=() if all_right == (label,) else all_right,
            references=tuple(self.task.references(row)),
        )
        return Prepared(example, options, encoded)

    def calibration(self, row: Row) -> Example:
        """The row's answers after its prompt without the content."""
        bare, prompt = self.task.calibration(row), self.task.prompt(row)
        if bare is None:
            raise UsageError(f"--calibrate: --task {self.task.name} has no prompt to calibrate by; leave it out")
        found = encode_options(self.codec.encode, bare.strip(" "), _stripped(prompt, self.task.options(row)))
        return Example(found.prompt, found.options, 0, found.scored)


def _stripped(prompt: str, options: Sequence[str]) -> list[str]:
    """What each option adds to the prompt once spaces are stripped from the ends of both."""
    start = prompt.strip(" ")
    return [(prompt + option).strip(" ")[len(start) :] for option in options]
