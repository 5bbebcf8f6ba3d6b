"""The forward pass of the official loop: every option row padded, logits at every position, all in the model's dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from workloads.models.inputs import padded


def option_loss(model: nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    """Cross-entropy over the options of each example, whose score is the mean log-prob of its tokens; 0-d, model dtype. Where
    the batch's `objective` is nll, the mean negative log-prob of all tokens of the rows, each of which is a target.

    batch   input_ids, attention_mask [rows, width] (one left-padded row per option); labels [rows] (index of the right option,
            repeated); option_len, num_options [rows]. Lists or tensors.
    """
    scores = option_scores(model, batch)
    labels = torch.as_tensor(batch["labels"], device=scores.device)
    if batch.get("objective") == "nll":
        lengths = torch.as_tensor(batch["option_len"], device=scores.device)
        return -(scores * lengths).sum() / lengths.sum()
    counts = [int(count) for count in batch["num_options"]]
    if len(set(counts)) == 1:
        return F.cross_entropy(scores.view(-1, counts[0]), labels.view(-1, counts[0])[:, 0])
    # Examples with different numbers of options: the mean of one cross-entropy each.
    start, losses = 0, []
    while start < len(counts):
        stop = start + counts[start]
        losses.append(F.cross_entropy(scores[None, start:stop], labels[start : start + 1]))
        start = stop
    return torch.stack(losses).sum() / len(losses)


def step_loss(model: nn.Module, batch: Mapping[str, Any] | Sequence[tuple[float, Mapping[str, Any]]]) -> torch.Tensor:
    """`option_loss`; of a step in several forwards, (share, rows) each, the sum of their shares, rounded to the model's dtype
    once."""
    if isinstance(batch, Mapping):
        return option_loss(model, batch)
    losses = [option_loss(model, rows) for _, rows in batch]
    return torch.stack([loss.float() * share for loss, (share, _) in zip(losses, batch, strict=True)]).sum().to(losses[0].dtype)


@torch.inference_mode()
def option_scores(model: nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    """Mean log-prob of each row's option tokens [rows], model dtype. A pad token inside an option does not count, as upstream."""
    device = next(model.parameters()).device
    ids = torch.as_tensor(batch["input_ids"], device=device)
    mask = torch.as_tensor(batch["attention_mask"], device=device)
    logits = model(**padded(model, ids, mask)).logits
    logprobs = F.log_softmax(logits[:, :-1].contiguous(), dim=-1)
    targets = ids[:, 1:]
    lengths = torch.as_tensor(batch["option_len"], device=device)
    wanted = torch.arange(targets.size(1), device=device) >= targets.size(1) - lengths[:, None]
    pad = getattr(model.config, "pad_token_id", None)
    if pad is not None:
        wanted &= targets != pad
    picked = logprobs.gather(-1, targets[..., None])[..., 0]
    return (picked * wanted).sum(-1) / wanted.sum(-1)
