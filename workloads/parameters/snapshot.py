"""A state of zeroth-order training that can be saved, restored, redone from its losses, and checked, bit for bit.

Shared by the executors that keep scoped weights, an accumulated state beside them and, for dense states, a copy.
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from bench.api import Direction, Snapshot
from workloads.parameters.accumulated import AccumulatedState, Pending
from workloads.parameters.checksum import Sums, checksum, part_sum
from workloads.parameters.dense import DenseStates
from workloads.parameters.means import RunningMeans
from workloads.parameters.shards import PENDING, WEIGHT, Shards, factor_places, place

AMOUNT, MEANS = "amount:", "means:"


def save(weights: dict[str, torch.Tensor], state: AccumulatedState, means: RunningMeans) -> Snapshot:
    """Scoped weights as they stand after their last fold, what is pending since, and the running means."""
    tensors = {WEIGHT + name: _copy(weight) for name, weight in weights.items()}
    held = list(state.pending.values())
    tensors |= {f"{PENDING}{i}": _copy(pending.flat) for i, pending in enumerate(held)}
    tensors |= {f"{AMOUNT}{i}": _copy(pending.amount) for i, pending in enumerate(held) if pending.amount is not None}
    tensors |= {MEANS + name: _copy(tensor) for name, tensor in means.tensors().items()}
    facts = {"pending": [asdict(pending.last) for pending in held], "means": means.facts(), "folds": state.folds}
    return Snapshot(tensors, facts)


def restore(
    snapshot: Snapshot,
    weights: dict[str, torch.Tensor],
    state: AccumulatedState,
    means: RunningMeans,
    dense: DenseStates | None,
) -> None:
    """Put a snapshot back, in place."""
    for name, weight in weights.items():
        weight.copy_(snapshot.tensors[WEIGHT + name])
    if dense is not None:
        dense.sync()
    state.begin_again(snapshot.facts.get("folds", 0))  # snapshots of before they were counted have none
    for i, fields in enumerate(snapshot.facts["pending"]):
        last = Direction(**fields)
        flat, amount = (snapshot.tensors.get(f"{part}{i}") for part in (PENDING, AMOUNT))
        assert flat is not None
        amount = None if amount is None else amount.to(state.device)
        state.pending[last.epoch] = Pending(last, flat.to(state.device), amount)
    kept = {name.removeprefix(MEANS): t for name, t in snapshot.tensors.items() if name.startswith(MEANS)}
    means.load(kept, snapshot.facts["means"])


def state_checksum(weights: dict[str, torch.Tensor], state: AccumulatedState, means: RunningMeans) -> str:
    """Of the scoped weights, the accumulated state and the running means."""
    pending = {f"{PENDING}{epoch}": held.factor for epoch, held in state.pending.items()}
    return checksum(weights | pending | {MEANS + name: tensor for name, tensor in means.tensors().items()})


def state_sums(weights: dict[str, torch.Tensor], state: AccumulatedState, shards: Shards) -> Sums:
    """What the parts here add to `state_checksum` of the whole; running means are kept by whole models alone."""
    found: Sums = {}
    for name, weight in weights.items():
        where = place(shards.parts[name], shards.whole[name])
        found[name] = (str(weight.dtype), tuple(shards.whole[name]), {where.owner: int(part_sum(weight, where))})
    for epoch, held in state.pending.items():
        places = factor_places(shards, held.last.rank)
        sides = held.factor.split([count for count, _ in places])
        rows = sum(shape[0] for shape in shards.whole.values() if len(shape) == 2)
        sums = {where.owner: int(part_sum(side, where)) for side, (_, where) in zip(sides, places, strict=True)}
        found[f"{PENDING}{epoch}"] = (str(held.factor.dtype), (rows * held.last.rank,), sums)
    return found


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
