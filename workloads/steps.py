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
    """Losses [n_probes] of a step, where the host left them."""
    losses = scored(host, workload, step, batch)
    with phase("host"):
        update = workload.update(step, losses)
    host.apply(update)
    return losses


def scored(host: Scoring, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
    """Losses [n_probes] of a step before it moves: of its plan, and of what the workload then asks for."""
    with phase("host"):
        probes = workload.plan(step)
    losses = host.score(batch, probes)
    with phase("host"):
        more = workload.then(step, losses)
    if not more:
        return losses
    import torch

    return torch.cat([losses, host.score(batch, more)])


def rounds(workload: Workload, step: int = 0) -> list[tuple[Probe, ...]]:
    """The probes of a step, round after round, as they would be if all of the plan's losses were 0."""
    import torch

    plan = workload.plan(step)
    more = workload.then(step, torch.zeros(len(plan)))
    return [plan, more] if more else [plan]
