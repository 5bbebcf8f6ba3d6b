"""What a task hands to an executor and where a model's files are: plain facts, importing nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal

Objective = Literal["classification", "nll"]
Metric = Literal["accuracy", "f1", "exact_match", "reward"]


@dataclass(frozen=True)
class Example:
    """One example as token ids.

    prompt      BOS included
    options     one row of ids per answer option; a target to be generated is the only one
    label       the option to train towards
    scored      how many of each option's last ids are scored; empty: all of them
    right       the options that count as right, if they are more than the label
    references  texts that a generated answer is compared with
    """

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    label: int
    scored: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    references: tuple[str, ...] = ()

    def rows(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """For each option the whole row, and how many of its last ids are scored."""
        counts = self.scored or map(len, self.options)
        yield from ((self.prompt + option, count) for option, count in zip(self.options, counts, strict=True))


Batch = Sequence[Example]
Reward = Callable[[str, str, Example], float]
"""(prompt, generated text, example) to a number, the higher the better."""


@dataclass(frozen=True)
class Minibatches(Sequence[Example]):
    """The examples of a step that averages the losses of several minibatches, each counting alike (`--accumulate`)."""

    parts: tuple[Batch, ...]

    @cached_property
    def _examples(self) -> tuple[Example, ...]:
        return tuple(chain.from_iterable(self.parts))

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, at: Any) -> Any:
        return self._examples[at]


def minibatches(batch: Batch) -> Sequence[Batch]:
    """Those of a step: one, unless it accumulates."""
    return batch.parts if isinstance(batch, Minibatches) else (batch,)


@dataclass(frozen=True)
class TaskData:
    """A tokenised task.

    digest                of everything scored
    max_tokens            longest row: prompt and option, or prompt and the most tokens of a generated answer
    single_token_options  whether every option is one token and every row is prompt + option exactly
    objective             of `train` and `dev`. classification: cross-entropy over the options' mean log-probs, mean over the
                          examples. nll: mean negative log-prob of the target tokens (`options[label]`), every token of a batch
                          counting alike; examples of `train` then have that option alone
    metric                what `eval` is judged by: over the options, or over generated answers where `answer_tokens` is not 0
    answer_tokens         the most tokens of a generated answer
    stop_ids              tokens that end a generated answer
    decode                ids of a generated answer -> its text, special tokens left out
    reward                of generated answers, where training raises it in place of lowering the objective; `metric` is then it
    calibration           the examples of `eval` with the content of their prompts left out; empty where they are not asked for
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    eval: tuple[Example, ...]
    digest: str
    pad_id: int
    max_tokens: int
    single_token_options: bool
    summary: dict[str, Any]
    objective: Objective = "classification"
    metric: Metric = "accuracy"
    answer_tokens: int = 0
    stop_ids: tuple[int, ...] = ()
    decode: Callable[[Sequence[int]], str] | None = None
    calibration: tuple[Example, ...] = ()
    reward: Reward | None = None


@dataclass(frozen=True)
class ModelSource:
    """Where to load a model from.

    path               a local folder with config.json, and weights and tokenizer when pretrained
    hub_id, revision   of the repository that the folder is a snapshot of, where it is one
    """

    name: str
    path: str
    weights: str
    trust_remote_code: bool = False
    hub_id: str | None = None
    revision: str | None = None
