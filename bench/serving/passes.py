"""What a step scores, as passes of the model in a process beside the engine's: no requests, and no keys and values that stay.

A request costs an engine more than its tokens do. These are the passes of the vllm executor's `--loop resident`: all states of
some examples in one ragged batch, which reads and writes no block of the pool that users share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.data import Batch, Example, Objective
from bench.executors.vllm.forward import Forward
from bench.executors.vllm.scoring import Head, option_logprobs
from bench.serving.course import Adapter, Scores
from bench.serving.process import Count
from workloads.tasks.ragged import labels_only, tree_rows


class Passes:
    """taken: whether the model's attention is plain enough. slot_of: vLLM's id of an adapter -> its slot; count: told of every
    part that was scored, in tokens. One scoring at a time; another begins where the last is given up."""

    def __init__(self, runner: Any, objective: Objective, slot_of: Mapping[int, int], count: Count) -> None:
        self.forward, self.head, self._objective = Forward(runner), Head(runner.model), objective
        self.taken = self.forward.shares == 1
        self.forward.packs = True
        limits = runner.scheduler_config
        self._tokens_fit, self._rows_fit = int(limits.max_num_batched_tokens), int(limits.max_num_seqs)
        self._slot_of, self._count = slot_of, count
        self._examples: Batch = ()
        self._slots: list[int] = []
        self._done: list[torch.Tensor] = []
        self._at, self._failed = 0, ""

    def ask(self, examples: Batch, adapters: Sequence[Adapter]) -> None:
        """ValueError for an example that fits in no pass."""
        slots = [self._slot_of[number] for _, number, _ in adapters]
        tokens, count = (max(len(slots) * size(e) for e in examples) for size in (_tokens, _rows))
        if tokens > self._tokens_fit or count > self._rows_fit:
            raise ValueError(
                f"an example takes {tokens} tokens in {count} rows over all states; start the server with at least "
                f"--round-tokens {tokens} --round-requests {count}, or with --probes requests"
            )
        self._examples, self._slots, self._done, self._at, self._failed = examples, slots, [], 0, ""

    @property
    def waits(self) -> bool:
        return self._at < len(self._examples)

    @torch.inference_mode()
    def advance(self) -> None:
        """One pass over as many examples as fit into it; what it runs into is what `answers` raises."""
        if not self.waits:
            return
        part, tokens = self._part()
        rows, labels = tree_rows(part, len(self._slots)), labels_only(part, self._objective)
        try:
            self._done.append(option_logprobs(self.forward, rows, self._slots, self.head, labels_only=labels).cpu())
        except Exception as error:
            self._failed, self._examples = f"{type(error).__name__}: {error}", ()
        self._count(tokens)

    def _part(self) -> tuple[Batch, int]:
        """The next examples, as many as fit into a pass with all states, and the most tokens that they have."""
        end, tokens, count, states = self._at, 0, 0, len(self._slots)
        while end < len(self._examples):
            tokens += (own := states * _tokens(self._examples[end]))
            count += states * _rows(self._examples[end])
            if end > self._at and (tokens > self._tokens_fit or count > self._rows_fit):
                tokens -= own
                break
            end += 1
        part, self._at = self._examples[self._at : end], end
        return part, tokens

    def answers(self) -> Scores | None:
        if self._failed:
            raise RuntimeError(self._failed)
        if self.waits:
            return None
        return [
            [row[: len(example.options)].tolist() for example, row in zip(self._examples, state, strict=True)]
            for state in zip_states(self._done, len(self._slots))
        ]

    def nbytes(self) -> int:
        """Of the second, packed copy of the weights that products are made with."""
        return self.forward.products.nbytes() if self.forward.products else 0


def _tokens(example: Example) -> int:
    """At most: what rows have in common is run once."""
    prompt, more = len(example.prompt), [len(option) - 1 for option in example.options if len(option) > 1]
    return sum(prompt + after for after in more) or prompt


def _rows(example: Example) -> int:
    return sum(len(option) > 1 for option in example.options) or 1


def zip_states(parts: list[torch.Tensor], states: int) -> list[list[torch.Tensor]]:
    """Scores [states, examples, options] of one part after another: those of each state."""
    return [[row for part in parts for row in part[state]] for state in range(states)]
