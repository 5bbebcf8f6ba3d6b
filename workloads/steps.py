"""The core step, written once: perturb, score, update. Executors run it where their weights live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from bench.api import Probe, Update, Workload, phase
from bench.data import Batch

if TYPE_CHECKING:
    import torch


class Scoring(Protocol):
    """What a step needs: an executor, or the part of one that lives in a worker."""

    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor: ...

    def apply(self, update: Update) -> None: ...


def core_step(host: Scoring, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
    """Losses [n_probes] of a step, where the host left them, unread."""
    with phase("host"):
        probes = workload.plan(step)
    losses = host.score(batch, probes)
    with phase("host"):
        update = workload.update(step, losses)
    host.apply(update)
    return losses
