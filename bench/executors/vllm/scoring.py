"""From hidden states to option log-probs and losses: only the positions and head rows that the loss needs."""

from __future__ import annotations

from typing import Any

import torch

from bench.api import mark
from bench.executors.vllm.forward import Forward
from workloads.tasks.loss import classification_loss
from workloads.tasks.ragged import Rows


def losses_of(forward: Forward, rows: Rows, slots: list[int], labels: torch.Tensor, model: Any) -> torch.Tensor:
    """One loss per probe of the rows [n_probes], float32, on the device. labels: right option of each example."""
    scores = option_logprobs(forward, rows, slots, model)
    return torch.stack([classification_loss(score, labels) for score in scores])


def option_logprobs(forward: Forward, rows: Rows, slots: list[int], model: Any) -> torch.Tensor:
    """Mean log-prob of each option [n_probes, n_examples, n_options], float32.

    For shared rows the normaliser over the vocabulary is left out: it is the same for all options of a prompt and
    cancels in the loss.
    """
    hidden = forward.hidden(rows, slots)
    with mark("head_logits"):
        chosen = hidden[forward.to_device(rows.wanted).long()]
        shape = (rows.probes, rows.examples, rows.options)
        if rows.option_ids is not None:
            head = model.lm_head.weight[forward.to_device(rows.option_ids).long()]  # [examples, options, hidden]
            chosen = chosen.view(rows.probes, rows.examples, -1)
            return torch.einsum("peh,eoh->peo", chosen.float(), head.float())
        logits = model.compute_logits(chosen).float()
        picked = logits.gather(1, forward.to_device(rows.targets).long()[:, None])[:, 0] - logits.logsumexp(1)
        if rows.per_row.max() == 1:
            return picked.view(shape)
        owner = torch.repeat_interleave(torch.arange(len(rows.per_row)), torch.from_numpy(rows.per_row).long())
        sums = torch.zeros(len(rows.per_row), device=picked.device).index_add_(0, forward.to_device(owner.numpy()), picked)
        return (sums / forward.to_device(rows.per_row)).view(shape)
