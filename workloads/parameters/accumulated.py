"""The accumulated state: updates since the last fold, kept as factors in float32 beside the weights.

Low-rank directions of one epoch share V, so their sum is one U-side buffer: sum_t c_t U_t V^T = acc V^T. A fold adds
acc V^T into the weights; LoZO folds when V is resampled, factorized directions before every next score.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bench.api import Direction
from workloads.directions import Drawn, Layout
from workloads.parameters.rounding import add_
from workloads.parameters.shards import Shards, drawn_here, part_of
from workloads.seeds import derive_seed

if TYPE_CHECKING:
    from workloads.parameters.fold_kernel import FusedFold

Epoch = tuple[int, int]


@dataclass
class Pending:
    """Updates of one epoch: the newest direction in it, and the U side [sum(out) * rank].

    A single update stays as it was drawn, beside its amount (0-d float32, scale included); a sum of several is float32.
    """

    last: Direction
    flat: torch.Tensor
    amount: torch.Tensor | None = None

    @property
    def factor(self) -> torch.Tensor:
        """The U side with its amount, float32 [sum(out) * rank]."""
        return self.scaled(self.flat)

    def scaled(self, part: torch.Tensor) -> torch.Tensor:
        """Any part of `flat` with its amount, float32."""
        return part if self.amount is None else part.float() * self.amount


SAMPLED_ROWS, REMEMBERED_FOLDS = 64, 100


class AccumulatedState:
    """Over the matrices of a layout. Directions are drawn in `dtype`: what was measured is what moves the weights.

    Every fold is watched on the first rows of the middle matrix: which share of them changed, and the cosine between what
    was meant to be added and what rounding let through.
    """

    def __init__(self, layout: Layout, device: torch.device | str, dtype: torch.dtype, shards: Shards | None = None) -> None:
        self.layout, self.device, self.dtype, self.shards = layout, torch.device(device), dtype, shards
        self.pending: dict[Epoch, Pending] = {}
        self.folds = 0
        matrices = [name for name, shape in layout.items() if len(shape) == 2]
        self._sampled = matrices[len(matrices) // 2] if matrices else ""
        self.fused = torch.device(device).type == "cuda" and dtype != torch.float32  # there is a kernel for such folds
        self._prepared: tuple[dict[str, torch.Tensor], FusedFold] | None = None
        self._watched: deque[torch.Tensor] = deque(maxlen=REMEMBERED_FOLDS)  # [changed share, cosine] each

    def begin_again(self, folds: int) -> None:
        """Nothing pending after so many folds, none of which was watched."""
        self.pending.clear()
        self._watched.clear()
        self.folds = folds

    def add(self, drawn: Drawn, coefficient: torch.Tensor) -> None:
        """acc += coefficient * U of this direction; the coefficient is a 0-d tensor and is not read back."""
        new = Pending(drawn.direction, drawn.u_flat, coefficient * drawn.scale)
        held = self.pending.setdefault(drawn.direction.epoch, new)
        if held is not new:
            held.last, held.flat, held.amount = new.last, held.factor.add_(new.factor), None

    def scale(self, share: float) -> None:
        """Everything pending times a number."""
        for held in self.pending.values():
            if held.amount is None:
                held.flat = held.flat * share
            else:
                held.amount = held.amount * share

    def stale(self, current: Collection[Epoch]) -> list[Epoch]:
        """Epochs with updates that the next probes do not share: what has to be folded before they are scored."""
        return [epoch for epoch in self.pending if epoch not in current]

    def factor(self, epoch: Epoch) -> torch.Tensor | None:
        """acc of an epoch, float32 [sum(out), rank]; None when nothing is pending."""
        held = self.pending.get(epoch)
        return None if held is None else held.factor.view(-1, held.last.rank)

    def values(self, epochs: Collection[Epoch] | None = None) -> PendingValues:
        """The pending updates of some epochs (default all) as numbers, V drawn once for all matrices."""
        chosen = list(self.pending) if epochs is None else list(epochs)
        return PendingValues([self._with_v(self.pending[e]) for e in chosen if e in self.pending])

    def fold(self, weights: dict[str, torch.Tensor], epochs: Collection[Epoch]) -> None:
        """weights += pending of these epochs, in one pass over the weights, and forget it.

        16-bit weights are rounded stochastically, seeded by (seed, step of the newest update, matrix): a fold replays,
        whenever between two updates it happens.
        """
        if not epochs:
            return
        newest = max((self.pending[e].last for e in epochs), key=lambda d: d.step)
        values, sampled = self.values(epochs), weights.get(self._sampled)
        before = None if sampled is None else sampled[:SAMPLED_ROWS].to(torch.float32, copy=True)
        if self.fused:
            self._kernel(weights)(*values.flat(), derive_seed("round", newest.seed, newest.step) >> 32)
        else:
            for name, weight in weights.items():
                delta = values.delta(name)
                if delta is not None:
                    add_(weight, delta, newest.seed, newest.step, name, shard=part_of(self.shards, name))
        factors = values.factors(self._sampled)
        if sampled is not None and before is not None and factors is not None:
            meant = factors[0][:SAMPLED_ROWS] @ factors[1]
            self._watch(meant.flatten(), (sampled[:SAMPLED_ROWS].float() - before).flatten())
        for epoch in epochs:
            del self.pending[epoch]
        self.folds += 1

    def facts(self) -> dict[str, Any]:
        """How many folds, and mean changed share and cosine over the last hundred (None before the first)."""
        means = torch.stack(list(self._watched)).mean(0).tolist() if self._watched else [None, None]
        return {"folds": self.folds, "fold_absorbed_fraction": means[0], "fold_cosine": means[1]}

    def nbytes(self) -> int:
        return sum(p.flat.numel() * p.flat.element_size() for p in self.pending.values())

    def _watch(self, meant: torch.Tensor, added: torch.Tensor) -> None:
        changed = (added != 0).float().mean()
        self._watched.append(torch.stack([changed, torch.cosine_similarity(meant, added, dim=0)]))

    def _with_v(self, held: Pending) -> tuple[Drawn, Pending]:
        return drawn_here(held.last, self.layout, self.device, self.dtype, self.shards, v_only=True), held

    def _kernel(self, weights: dict[str, torch.Tensor]) -> FusedFold:
        if self._prepared is None or self._prepared[0] is not weights:
            from workloads.parameters.fold_kernel import FusedFold

            self._prepared = weights, FusedFold(weights, self.layout, self.shards)
        return self._prepared[1]


class PendingValues:
    """acc V^T of some epochs: matrix by matrix, or all in flat buffers."""

    def __init__(self, terms: list[tuple[Drawn, Pending]]) -> None:
        self._terms = terms

    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """U side [out, k] and V^T [k, in] of one matrix, float32, k the ranks of all epochs together; None when there is none."""
        terms = [(drawn, held) for drawn, held in self._terms if drawn.factored(name)]
        pairs = [(held.scaled(drawn.slice_u(held.flat, name)), drawn.vt(name).float()) for drawn, held in terms]
        if len(pairs) <= 1:
            return pairs[0] if pairs else None
        return torch.cat([u for u, _ in pairs], dim=1), torch.cat([vt for _, vt in pairs], dim=0)

    def delta(self, name: str) -> torch.Tensor | None:
        """The sum over the epochs for one matrix, float32 [out, in]; None when there is none."""
        found = self.factors(name)
        return None if found is None else found[0] @ found[1]

    def flat(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """U side, V^T, the amount they are to be taken with, and k, laid out as in `Drawn` with rank k."""
        drawn, held = self._terms[0]
        one = torch.ones((), device=drawn.device)
        if len(self._terms) == 1:
            return held.flat, drawn.v_flat, one if held.amount is None else held.amount.to(one), held.last.rank
        u = torch.cat([held.factor.view(-1, held.last.rank) for _, held in self._terms], dim=1)
        names = [name for name in drawn.layout if drawn.factored(name)]
        vt = torch.cat([part.vt(name).flatten() for name in names for part, _ in self._terms])
        return u.flatten(), vt, one, u.size(1)
