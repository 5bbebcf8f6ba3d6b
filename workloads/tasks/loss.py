"""What a training step minimises: cross-entropy over answer options, or the mean negative log-prob of a target's tokens.

Source: arXiv 2305.17333 and its published code, which LoZO's runs share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from bench.data import Batch, Objective


def batch_loss(objective: Objective, option_logprobs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The objective, in nats, of mean option log-probs [..., n, most options] of the batch's examples, float32 -> [...]."""
    device = option_logprobs.device
    labels = torch.tensor([example.label for example in batch]).to(device, non_blocking=True)
    if objective == "classification":
        return classification_loss(option_logprobs, labels)
    scored = torch.tensor([list(example.rows())[example.label][1] for example in batch]).to(device, non_blocking=True)
    right = option_logprobs.gather(-1, labels.expand(option_logprobs.shape[:-1])[..., None])[..., 0]
    return target_loss(right, scored)


def classification_loss(option_logprobs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the options, mean over the examples: scores [..., n, options] float32, labels [n] -> [...], in nats.

    A score is the mean log-prob of an option's tokens; a constant added to all scores of an example changes nothing. Examples
    with fewer options than others have -inf in place of the rest.
    """
    if option_logprobs.ndim == 2:
        return F.cross_entropy(option_logprobs, labels.long())
    every = labels.long().expand(option_logprobs.shape[:-1])
    return F.cross_entropy(option_logprobs.flatten(0, -2), every.flatten(), reduction="none").view(every.shape).mean(-1)


def target_loss(target_logprobs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean negative log-prob over all target tokens: mean log-probs [..., n] of targets, their lengths [n] -> [...], in nats.

    Every token counts alike, so a long target weighs more than a short one.
    """
    return -(target_logprobs * lengths).sum(-1) / lengths.sum()


def ragged(scores: torch.Tensor, options: torch.Tensor) -> torch.Tensor:
    """Scores of rows, example after example [..., rows], as [..., n, most options]; -inf where an example has no such option.

    options [n]: how many rows each example has, on the CPU.
    """
    most, least = int(options.max()), int(options.min())
    if most == least:
        return scores.view(*scores.shape[:-1], -1, most)
    filled = torch.arange(most)[None] < options[:, None]
    found = scores.new_full((*scores.shape[:-1], *filled.shape), -torch.inf)
    found[..., filled.to(scores.device)] = scores
    return found


def stacked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scores [n, most options] of several parts in one, filled up with -inf."""
    most = max(part.size(1) for part in parts)
    return torch.cat([F.pad(part, (0, most - part.size(1)), value=-torch.inf) for part in parts])
