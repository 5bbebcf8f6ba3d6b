"""A trained state as low-rank factors: the exact ones of low-rank directions, or the best of a given rank by SVD."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.api import Workload
from workloads.directions import Layout
from workloads.parameters.accumulated import PendingValues
from workloads.parameters.parameters import Parameters

Factors = tuple[torch.Tensor, torch.Tensor]
"""B [out, k] and A [k, in], float32 on the CPU; the change of a matrix is B A."""


def total_change(
    workload: Workload, losses: Sequence[Sequence[float]], layout: Layout, device: str, dtype: torch.dtype
) -> PendingValues:
    """Everything the steps moved, never folded: rank = the directions' rank times the number of epochs of V.

    losses    [steps][n_probes], from step 0 on
    """
    moved = Parameters({}, layout, torch.device(device), dtype)
    for step, found in enumerate(losses):
        moved.apply(workload.update(step, torch.tensor(found, dtype=torch.float32, device=device)))
    return moved.state.values()


def reduce(b: torch.Tensor, a: torch.Tensor, rank: int) -> Factors:
    """The best approximation of B A of that rank in the Frobenius norm; no [out, in] matrix is formed."""
    (left, upper), (right, lower) = torch.linalg.qr(b), torch.linalg.qr(a.t())
    u, s, vh = torch.linalg.svd(upper @ lower.t(), full_matrices=False)
    root = s[:rank].sqrt()
    return left @ u[:, :rank] * root, root[:, None] * (vh[:rank] @ right.t())


def decompose(change: torch.Tensor, rank: int) -> Factors:
    """The same for a change [out, in] that has no factors."""
    u, s, vh = torch.linalg.svd(change, full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vh[:rank]
