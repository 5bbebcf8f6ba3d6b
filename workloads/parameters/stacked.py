"""Updates that are never folded: beside a model that others read, what training has learned stays in an adapter's columns.

Every epoch of V adds its columns, U side and V^T; theta = W + sum over epochs of acc_e V_e^T. When the columns are used up, the
past is compressed by a singular value decomposition of the factors, and what that loses is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from bench.api import Direction, Snapshot
from workloads.directions import Layout
from workloads.parameters.accumulated import AccumulatedState, Epoch, Pending, PendingValues
from workloads.parameters.checksum import checksum

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Matrix -> B [out, k] and A [k, in], float32: it moves by B A."""
KEPT = 0.75
"""Of the columns that there are, what a compression may leave in use: the next epochs need room too."""


class StackedState:
    """room: columns for the past, which is every epoch but the current one. Directions are drawn in `dtype`."""

    def __init__(self, layout: Layout, device: torch.device | str, dtype: torch.dtype, room: int) -> None:
        self.state, self.room = AccumulatedState(layout, device, dtype), room
        self.names = [name for name, shape in layout.items() if len(shape) == 2]
        self.kept: Factors = {}
        self.token = object()  # tells this state's columns from another's
        self.compressions, self.lost, self.last_error = 0, 0.0, 0.0
        self._terms: PendingValues | None = None
        self._made: Factors = {}
        self._going: list[Epoch] = []
        self._squares = [0.0, 0.0]  # lost, all

    def past(self, current: Epoch | None) -> list[Epoch]:
        """Epochs with updates, without the one that the next probes share."""
        return [epoch for epoch in self.state.pending if epoch != current]

    def width(self, current: Epoch | None) -> int:
        """Columns that the past takes."""
        kept = next(iter(self.kept.values()))[0].size(1) if self.kept else 0
        return kept + sum(self.state.pending[epoch].last.rank for epoch in self.past(current))

    def factors(self, current: Epoch | None) -> Factors:
        """The past of every matrix."""
        values = self.state.values(self.past(current))
        return {name: _joined(self.kept.get(name), values.factors(name)) for name in self.names}

    def compress(self, current: Epoch | None, matrices: int) -> int:
        """Bring the past of the next so many matrices to fewer columns; how many are left to do. The state changes with the
        last one, so that a server may do other things in between."""
        if self._terms is None:
            self._going = self.past(current)
            self._terms, self._made, self._squares = self.state.values(self._going), {}, [0.0, 0.0]
        for name in self.names[len(self._made) : len(self._made) + matrices]:
            b, a = _joined(self.kept.get(name), self._terms.factors(name))
            self._made[name], lost, whole = truncated(b, a, int(self.room * KEPT))
            self._squares = [self._squares[0] + lost, self._squares[1] + whole]
        left = len(self.names) - len(self._made)
        if not left:
            lost, whole = (math.sqrt(value) for value in self._squares)
            self.kept, self._terms = self._made, None
            self.compressions, self.lost, self.last_error = (
                self.compressions + 1,
                self.lost + lost,
                lost / whole if whole else 0.0,
            )
            for epoch in self._going:
                del self.state.pending[epoch]
        return left

    def facts(self) -> dict[str, Any]:
        """error: of the last compression, Frobenius norm of what it lost over that of what there was; lost: the norms' sum, a
        bound for all of them together."""
        return {"compressions": self.compressions, "error": self.last_error, "lost": self.lost}

    def snapshot(self) -> Snapshot:
        held = list(self.state.pending.values())
        tensors = self._tensors(held)
        facts = {"pending": [asdict(pending.last) for pending in held], **self.facts()}
        return Snapshot({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}, facts)

    def restore(self, snapshot: Snapshot) -> None:
        tensors = {name: tensor.to(self.state.device) for name, tensor in snapshot.tensors.items()}
        self.kept = {name: (tensors[f"b:{name}"], tensors[f"a:{name}"]) for name in self.names if f"b:{name}" in tensors}
        self.state.pending.clear()
        for i, fields in enumerate(snapshot.facts["pending"]):
            last = Direction(**fields)
            self.state.pending[last.epoch] = Pending(last, tensors[f"pending:{i}"], tensors.get(f"amount:{i}"))
        self.compressions, self.lost = int(snapshot.facts["compressions"]), float(snapshot.facts["lost"])
        self.last_error, self._terms = float(snapshot.facts["error"]), None

    def checksum(self) -> str:
        return checksum(self._tensors(self.state.pending.values()))

    def nbytes(self) -> int:
        return self.state.nbytes() + sum(4 * (b.numel() + a.numel()) for b, a in self.kept.values())

    def _tensors(self, held: Iterable[Pending]) -> dict[str, torch.Tensor]:
        found = {f"{side}:{name}": tensor for name, pair in self.kept.items() for side, tensor in zip("ba", pair, strict=True)}
        for i, pending in enumerate(held):
            found[f"pending:{i}"] = pending.flat
            if pending.amount is not None:
                found[f"amount:{i}"] = pending.amount
        return found


def truncated(b: torch.Tensor, a: torch.Tensor, columns: int) -> tuple[tuple[torch.Tensor, torch.Tensor], float, float]:
    """The best B A of so many columns (Eckart and Young), and the squared Frobenius norms of what is lost and of all of it."""
    qb, rb = torch.linalg.qr(b)
    qa, ra = torch.linalg.qr(a.t())
    u, s, vt = torch.linalg.svd(rb @ ra.t(), full_matrices=False)
    k = min(columns, s.numel())
    root = s[:k].sqrt()
    kept_b, kept_a = b.new_zeros(b.size(0), columns), a.new_zeros(columns, a.size(1))
    kept_b[:, :k], kept_a[:k] = (qb @ u[:, :k]) * root, (qa @ vt[:k].t() * root).t()
    return (kept_b, kept_a), float((s[k:] ** 2).sum()), float((s**2).sum())


def _joined(
    kept: tuple[torch.Tensor, torch.Tensor] | None, more: tuple[torch.Tensor, torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    if kept is None or more is None:
        found = kept or more
        assert found is not None
        return found
    return torch.cat([kept[0], more[0]], dim=1), torch.cat([kept[1], more[1]], dim=0)
