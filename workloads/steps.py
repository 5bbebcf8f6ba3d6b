"""Whole core steps on anything that scores and applies: where the weights live, or call by call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from bench.api import Probe, Update, Workload
from bench.data import Batch


class Scorer(Protocol):
    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor: ...

    def apply(self, update: Update) -> None: ...


def run_steps(scorer: Scorer, workload: Workload, step: int, batches: Sequence[Batch]) -> torch.Tensor:
    """Steps `step`, `step + 1`, ... one per batch; losses [n_batches, n_probes] where the scorer left them, unread."""
    found = []
    for at, batch in enumerate(batches, start=step):
        losses = scorer.score(batch, workload.plan(at))
        scorer.apply(workload.update(at, losses))
        found.append(losses)
    return torch.stack(found)
