"""Slots for `--scope adapter`: each holds one state of the adapter that is trained, A and alpha / rank * B."""

from __future__ import annotations

import torch

from bench.api import Probe
from workloads.models.adapter import FLAT, Adapter
from workloads.parameters.parameters import Parameters


class TrainedSlots:
    """slices: name -> (A [slots, 1, max_rank, in], B [slots, 1, out, max_rank]) of the adapter's targets."""

    def __init__(self, slices: dict[str, tuple[torch.Tensor, torch.Tensor]], adapter: Adapter) -> None:
        first_a, first_b = next(iter(slices.values()))
        count, width, rank = first_a.size(0), first_b.size(3), adapter.rank
        if width < rank:
            raise ValueError(f"adapter slots of rank {width} cannot hold {rank}")
        self.adapter = adapter
        self.staged = torch.zeros(1, adapter.size, dtype=first_a.dtype, device=first_a.device)
        pairs = adapter.pairs(self.staged[0])
        self._sources = [part for pair in pairs.values() for part in pair]
        self._slots = [[part for name in pairs for part in self._parts(slices[name], slot)] for slot in range(count)]

    def _parts(self, tensors: tuple[torch.Tensor, torch.Tensor], slot: int) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = tensors
        return a[slot, 0, : self.adapter.rank], b[slot, 0, :, : self.adapter.rank]

    def write(self, slot: int, moved: Parameters, probe: Probe | None) -> None:
        """Put one state into a slot: of a probe, or for None the current one."""
        self.staged.copy_(moved.at(FLAT, probe))
        self.staged[:, self.adapter.split :] *= self.adapter.scale
        torch._foreach_copy_(self._slots[slot], self._sources)

    def nbytes(self) -> int:
        return sum(part.numel() * part.element_size() for slot in self._slots for part in slot)
