"""LoRA in PyTorch over contiguous segments of tokens: the CPU's kernels, and the `unfused` form on every device.

Source of the interface: vLLM's PunicaWrapperBase. An adapter's tokens stand together, so a segment is (slot, start, end).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase

from bench.api import mark
from bench.executors.vllm.rows import FEW, NARROW, at_least
from workloads.tasks.ragged import Rows

Segment = tuple[int, int, int]


def segments_of(slots: Sequence[int]) -> list[Segment]:
    """Runs of equal slot numbers over the tokens, those without an adapter (-1) left out."""
    found, at = [], 0
    for slot, run in groupby(slots):
        length = sum(1 for _ in run)
        if slot >= 0:
            found.append((slot, at, at + length))
        at += length
    return found


def segments(rows: Rows, slots: Sequence[int]) -> list[Segment]:
    """The tokens of each probe of a batch, where it has a slot."""
    ends = np.append(0, np.cumsum(rows.lengths))[np.searchsorted(rows.states, np.arange(len(slots) + 1))].tolist()
    return [(slot, ends[at], ends[at + 1]) for at, slot in enumerate(slots) if slot >= 0]


class SegmentedLora(PunicaWrapperBase):
    """What both forms share: the segments of the current batch."""

    def __init__(self, max_num_batched_tokens: int, max_batches: int, device: torch.device | str, **_: Any) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device)
        self.segments: list[Segment] = []

    def update_metadata(
        self, mapping: LoRAMapping, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **_: Any
    ) -> None:
        slot = {lora_id: index for index, lora_id in enumerate(lora_index_to_id) if lora_id is not None}
        self.segments = segments_of([slot.get(lora_id, -1) for lora_id in mapping.index_mapping])

    def add_shrink(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("LoRA in PyTorch serves linear layers as a whole (add_lora_linear)")

    add_expand = add_lora_embedding = add_lora_logits = apply_lora_full_linear = add_shrink


class GroupedLora(SegmentedLora):
    """`fused`: one shrink per segment for all slices of the layer, expanded in place."""

    def _columns(self, count: int, x: torch.Tensor) -> list[torch.Tensor]:
        """So many columns of zeros, where a product would have too few."""
        if count <= 0:
            return []
        kept: dict[tuple[int, int], torch.Tensor] = self.__dict__.setdefault("_zeros", {})
        if (count, x.size(1)) not in kept:
            kept[count, x.size(1)] = x.new_zeros(count, x.size(1))
        return [kept[count, x.size(1)]]

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """y [tokens, sum(output_slices)] += scale * x [tokens, in] A^T B^T, each segment with its slot's A and B."""
        more = self._columns(NARROW - sum(a.size(2) for a in lora_a_stacked), x)
        with mark("lora_shrink_expand"):
            for slot, start, end in self.segments:
                rows, added = at_least(FEW, x[start:end]), at_least(FEW, y[start:end])
                a, widths = torch.cat([*(a[slot, 0] for a in lora_a_stacked), *more]), [a.size(2) for a in lora_a_stacked]
                shrunk = (rows @ a.t()).split([*widths, *map(len, more)], dim=1)
                for part, b, out in zip(shrunk, lora_b_stacked, added.split(output_slices, dim=1), strict=False):
                    out.addmm_(part, b[slot, 0].t(), alpha=scale)
                if end - start < FEW:
                    y[start:end] = added[: end - start]
        return y


class UnfusedLora(SegmentedLora):
    """`unfused`: plain separate products per layer, slice and probe, as adapter code without grouped kernels does."""

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """The same sum as GroupedLora's."""
        with mark("lora_shrink_expand"):
            offset = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                for slot, start, end in self.segments:
                    shrunk = x[start:end] @ a[slot, 0].t()
                    y[start:end, offset : offset + width] += (shrunk @ b[slot, 0].t()) * scale
                offset += width
        return y
