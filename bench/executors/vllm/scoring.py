"""From hidden states to option log-probs and losses: only the positions and head rows that the loss needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.model_executor.layers.logits_processor import LogitsProcessor

from bench.api import mark
from bench.data import Batch, Objective
from bench.executors.vllm.forward import Forward
from bench.executors.vllm.shards import head_rows
from workloads.tasks.loss import batch_loss, ragged
from workloads.tasks.ragged import Rows


class Head:
    """A model's own way from hidden states to logits: what it does before its head and after it (soft caps, scales, biases)."""

    def __init__(self, model: Any) -> None:
        self.model = model
        found = [module for module in model.modules() if isinstance(module, LogitsProcessor)]
        self._processor: Any = found[0] if len(found) == 1 else None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [positions, dim] -> [positions, vocabulary], float32."""
        logits: torch.Tensor = self.model.compute_logits(hidden)
        return logits.float()

    def labels(self, hidden: torch.Tensor, at: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [options] of the tokens at positions `at` of hidden, float32: those rows of the head and no others.

        The model runs its own code with one thing exchanged: the product with the head's matrix inside vLLM's LogitsProcessor.
        """
        taken = []

        def product(given: torch.Tensor, head: Any, bias: torch.Tensor | None, *_: Any) -> torch.Tensor:
            taken.append(head)
            return head_rows(given[at], head, tokens, bias)

        if self._processor is not None:
            self._processor._get_logits = product
            try:
                logits: torch.Tensor = self.model.compute_logits(hidden)
            finally:
                del self._processor._get_logits
            if taken:
                return logits[:, 0].float()
        return self.logits(hidden)[at, tokens]


def losses_of(
    forward: Forward, rows: Rows, slots: list[int], batch: Batch, objective: Objective, head: Head, *, labels_only: bool
) -> torch.Tensor:
    """One loss per probe of the rows [n_probes], float32, on the device."""
    scores = option_logprobs(forward, rows, slots, head, labels_only=labels_only)
    return batch_loss(objective, scores, batch)


def option_logprobs(forward: Forward, rows: Rows, slots: list[int], head: Head, *, labels_only: bool = False) -> torch.Tensor:
    """Mean log-prob of each option [n_probes, n_examples, most options], float32; -inf where an example has fewer.

    labels_only   every option is one token: its row of the head is all that is read. The normaliser over the vocabulary is
                  left out; it is the same for all options of a prompt and cancels in a cross-entropy over them
    """
    chosen = forward.hidden(rows, slots)
    with mark("head_logits"):
        at, targets = (forward.to_device(part).long() for part in (rows.at, rows.targets))
        if labels_only:
            scores = head.labels(chosen, at, targets)
        else:
            logits = head.logits(chosen)
            scores = logits[at, targets] - logits.logsumexp(1)[at]
            scores = _means(scores, rows.per_option, forward)
        return ragged(scores.view(rows.probes, -1), torch.from_numpy(rows.options).long())


def _means(scores: torch.Tensor, per_option: np.ndarray, forward: Forward) -> torch.Tensor:
    """Mean over the scored tokens of each option [options]."""
    if per_option.max() == 1:
        return scores
    owner = forward.to_device(np.repeat(np.arange(len(per_option)), per_option))
    sums = torch.zeros(len(per_option), device=scores.device).index_add_(0, owner, scores)
    return sums / forward.to_device(per_option)
