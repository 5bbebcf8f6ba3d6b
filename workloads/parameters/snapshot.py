"""A state of zeroth-order training that can be saved, restored, redone from its losses, and checked, bit for bit.

Shared by the executors that keep scoped weights, an accumulated state beside them and, for dense states, a copy.
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from bench.api import Direction, Snapshot
from workloads.parameters.accumulated import AccumulatedState, Pending
from workloads.parameters.checksum import checksum
from workloads.parameters.dense import DenseStates

WEIGHT, PENDING, AMOUNT = "weight:", "pending:", "amount:"


def save(weights: dict[str, torch.Tensor], state: AccumulatedState) -> Snapshot:
    """Scoped weights as they stand after their last fold, and what is pending since."""
    tensors = {WEIGHT + name: _copy(weight) for name, weight in weights.items()}
    held = list(state.pending.values())
    tensors |= {f"{PENDING}{i}": _copy(pending.flat) for i, pending in enumerate(held)}
    tensors |= {f"{AMOUNT}{i}": _copy(pending.amount) for i, pending in enumerate(held) if pending.amount is not None}
    return Snapshot(tensors, {"pending": [asdict(pending.last) for pending in held]})


def restore(snapshot: Snapshot, weights: dict[str, torch.Tensor], state: AccumulatedState, dense: DenseStates | None) -> None:
    """Put a snapshot back, in place."""
    for name, weight in weights.items():
        weight.copy_(snapshot.tensors[WEIGHT + name])
    if dense is not None:
        dense.sync()
    state.pending.clear()
    for i, fields in enumerate(snapshot.facts["pending"]):
        last = Direction(**fields)
        flat, amount = (snapshot.tensors.get(f"{part}{i}") for part in (PENDING, AMOUNT))
        assert flat is not None
        amount = None if amount is None else amount.to(state.device)
        state.pending[last.epoch] = Pending(last, flat.to(state.device), amount)


def state_checksum(weights: dict[str, torch.Tensor], state: AccumulatedState) -> str:
    """Of the scoped weights and the accumulated state."""
    pending = {f"{PENDING}{epoch}": held.factor for epoch, held in state.pending.items()}
    return checksum(weights | pending)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
