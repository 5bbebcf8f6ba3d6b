"""The accumulated state: updates since the last fold, kept as factors in float32 beside the weights.

Low-rank directions of one epoch share V, so their sum is one U-side buffer: sum_t c_t U_t V^T = acc V^T. A fold adds
acc V^T into the weights; LoZO folds when V is resampled, factorized directions before every next score.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from bench.api import Direction
from workloads.directions import Drawn, Layout, derive_seed, draw
from workloads.rounding import add_

Epoch = tuple[int, int]


@dataclass
class Pending:
    """Updates of one epoch: the newest direction in it, and float32 [sum(out) * rank] on the U side, scale included."""

    last: Direction
    factor: torch.Tensor


SAMPLED_ROWS, REMEMBERED_FOLDS = 64, 100


class AccumulatedState:
    """Over the matrices of a layout. Directions are drawn in `dtype`: what was measured is what moves the weights.

    Every fold is watched on the first rows of the middle matrix: which share of them changed, and the cosine between what
    was meant to be added and what rounding let through.
    """

    def __init__(self, layout: Layout, device: torch.device | str, dtype: torch.dtype) -> None:
        self.layout, self.device, self.dtype = layout, device, dtype
        self.pending: dict[Epoch, Pending] = {}
        self.folds = 0
        matrices = [name for name, shape in layout.items() if len(shape) == 2]
        self._sampled = matrices[len(matrices) // 2] if matrices else None
        self._watched: deque[torch.Tensor] = deque(maxlen=REMEMBERED_FOLDS)  # [changed share, cosine] each

    def add(self, drawn: Drawn, coefficient: torch.Tensor) -> None:
        """acc += coefficient * U of this direction; the coefficient is a 0-d tensor and is not read back."""
        term = drawn.u_flat.float() * (coefficient * drawn.scale)
        held = self.pending.get(drawn.direction.epoch)
        if held is None:
            self.pending[drawn.direction.epoch] = Pending(drawn.direction, term)
        else:
            held.factor.add_(term)
            held.last = drawn.direction

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
        return PendingValues([(self._with_factor(self.pending[e])) for e in chosen if e in self.pending])

    def fold(self, weights: dict[str, torch.Tensor], epochs: Collection[Epoch]) -> None:
        """weights += pending of these epochs, in one pass over the weights, and forget it.

        16-bit weights are rounded stochastically, seeded by (seed, step of the newest update, name): a fold replays,
        whenever between two updates it happens.
        """
        if not epochs:
            return
        newest = max((self.pending[e].last for e in epochs), key=lambda d: d.step)
        values = self.values(epochs)
        for name, weight in weights.items():
            factors = values.factors(name)
            if factors is None:
                continue
            before = weight[:SAMPLED_ROWS].to(torch.float32, copy=True) if name == self._sampled else None
            _add_product(weight, *factors, newest.seed, newest.step, name)
            if before is not None:
                meant = factors[0][:SAMPLED_ROWS] @ factors[1]
                self._watch(meant.flatten(), (weight[:SAMPLED_ROWS].float() - before).flatten())
        for epoch in epochs:
            del self.pending[epoch]
        self.folds += 1

    def facts(self) -> dict[str, Any]:
        """How many folds, and mean changed share and cosine over the last hundred (None before the first)."""
        means = torch.stack(list(self._watched)).mean(0).tolist() if self._watched else [None, None]
        return {"folds": self.folds, "fold_absorbed_fraction": means[0], "fold_cosine": means[1]}

    def nbytes(self) -> int:
        return sum(p.factor.numel() * p.factor.element_size() for p in self.pending.values())

    def _watch(self, meant: torch.Tensor, added: torch.Tensor) -> None:
        changed = (added != 0).float().mean()
        self._watched.append(torch.stack([changed, torch.cosine_similarity(meant, added, dim=0)]))

    def _with_factor(self, held: Pending) -> tuple[Drawn, torch.Tensor]:
        return draw(held.last, self.layout, self.device, self.dtype, v_only=True), held.factor


class PendingValues:
    """acc V^T of some epochs, matrix by matrix."""

    def __init__(self, terms: list[tuple[Drawn, torch.Tensor]]) -> None:
        self._terms = terms

    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """U side [out, k] and V^T [k, in] of one matrix, float32, k the ranks of all epochs together; None when there is none."""
        pairs = [(drawn.slice_u(factor, name), drawn.vt(name).float()) for drawn, factor in self._terms if drawn.factored(name)]
        if not pairs:
            return None
        if len(pairs) == 1:
            return pairs[0]
        return torch.cat([u for u, _ in pairs], dim=1), torch.cat([vt for _, vt in pairs], dim=0)

    def delta(self, name: str) -> torch.Tensor | None:
        """The sum over the epochs for one matrix, float32 [out, in]; None when there is none."""
        found = self.factors(name)
        return None if found is None else found[0] @ found[1]


def _add_product(weight: torch.Tensor, u: torch.Tensor, vt: torch.Tensor, *seed: object) -> None:
    """weight += u @ vt, rounded as `rounding.add_` does; in one kernel where the weight is 16-bit and on a GPU."""
    if weight.is_cuda and weight.dtype != torch.float32:
        from workloads.fused_fold import fold_

        fold_(weight, u, vt, derive_seed("round", *seed) >> 32)
    else:
        add_(weight, u @ vt, *seed)
