"""What a training step minimises: cross-entropy over answer options, or the mean negative log-prob of a target's tokens.

Source: arXiv 2305.17333 and its published code, which LoZO's runs share.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bench.data import Batch, Objective


def batch_loss(objective: Objective, option_logprobs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The objective, 0-d, in nats, of mean option log-probs [n, most options] of the batch's examples, float32."""
    device = option_logprobs.device
    labels = torch.tensor([example.label for example in batch]).to(device, non_blocking=True)
    if objective == "classification":
        return classification_loss(option_logprobs, labels)
    scored = [count for example in batch for n, (_, count) in enumerate(example.rows()) if n == example.label]
    return target_loss(option_logprobs.gather(1, labels[:, None])[:, 0], torch.tensor(scored).to(device, non_blocking=True))


def classification_loss(option_logprobs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the options, mean over the examples: scores [n, options] float32, labels [n] -> 0-d, in nats.

    A score is the mean log-prob of an option's tokens; a constant added to all scores of an example changes nothing. Examples
    with fewer options than others have -inf in place of the rest.
    """
    return F.cross_entropy(option_logprobs, labels.long())


def target_loss(target_logprobs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean negative log-prob over all target tokens: mean log-probs [..., n] of targets, their lengths [n] -> [...], in nats.

    Every token counts alike, so a long target weighs more than a short one.
    """
    return -(target_logprobs * lengths).sum(-1) / lengths.sum()


def ragged(scores: torch.Tensor, options: torch.Tensor) -> torch.Tensor:
    """Scores of rows, example after example [..., rows], as [..., n, most options]; -inf where an example has no such option.

    options [n]: how many rows each example has, on the CPU.
    """
    filled = torch.arange(int(options.max()))[None] < options[:, None]
    found = scores.new_full((*scores.shape[:-1], *filled.shape), -torch.inf)
    found[..., filled.to(scores.device)] = scores
    return found


def accuracy(option_logprobs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of examples whose best option is the right one."""
    return float((option_logprobs.argmax(1) == labels).float().mean())
