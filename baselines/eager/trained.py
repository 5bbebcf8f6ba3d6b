"""A trained adapter as what a forward runs under: every probe has its own A and B."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workloads.models.adapter import Adapter


class TrainedStates:
    """P states of an adapter; rows of a forward stand probe by probe. Beside `AdapterStates`, which has a Z for each probe.

    flat    [P, size] in the model's dtype
    """

    def __init__(self, states: Sequence[torch.Tensor], adapter: Adapter, dtype: torch.dtype, fused: bool) -> None:
        """states: vectors [1, size], float32."""
        self.probes, self.scale, self.fused = len(states), adapter.scale, fused
        self.flat = torch.cat(list(states)).to(dtype)
        self._pairs = adapter.pairs(self.flat)

    def add(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y + scale * x A^T B^T with each probe's own: x [.., in], y [.., out], the tokens of one probe after another's."""
        a, b = self._pairs[name]
        xs, ys = (t.reshape(self.probes, -1, t.size(-1)) for t in (x, y))
        if self.fused:
            return torch.baddbmm(ys, torch.bmm(xs, a.transpose(1, 2)), b.transpose(1, 2), alpha=self.scale).view_as(y)
        parts = [y_p + x_p @ a_p.t() @ b_p.t() * self.scale for x_p, y_p, a_p, b_p in zip(xs, ys, a, b, strict=True)]
        return torch.stack(parts).view_as(y)

    def nbytes(self) -> int:
        return self.flat.numel() * self.flat.element_size()
