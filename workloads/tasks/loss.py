"""The classification loss over answer options. Source: arXiv 2305.17333 and its published code."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def classification_loss(option_logprobs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the options, mean over the examples: scores [n, options] float32, labels [n] -> 0-d, in nats.

    A score is the mean log-prob of an option's tokens; a constant added to all scores of an example changes nothing.
    """
    return F.cross_entropy(option_logprobs, labels.long())


def accuracy(option_logprobs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of examples whose best option is the right one."""
    return float((option_logprobs.argmax(1) == labels).float().mean())
