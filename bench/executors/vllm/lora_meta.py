"""Tells vLLM's Triton LoRA kernels which tokens use which slot, computed on the host from what the step already knows.

vLLM derives the same tensors on the device with a sort and a unique, which makes the host wait for the previous step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def fill(meta: Any, slots: np.ndarray, to_device: Callable[[np.ndarray], torch.Tensor]) -> None:
    """Write the kernel metadata of one forward into vLLM's LoRAKernelMeta.

    slots    [tokens] int32, the slot of each token, -1 for none
    """
    none = bool((slots < 0).all())
    meta.no_lora_flag_cpu[0] = none
    if none:
        meta.num_active_loras_cpu[0] = 0
        return
    ids, counts = np.unique(slots, return_counts=True)
    active = np.full(meta.active_lora_ids.numel(), -1)
    per_slot, starts = np.zeros(meta.num_tokens_per_lora.numel()), np.zeros(meta.lora_token_start_loc.numel())
    active[: len(ids)], per_slot[: len(ids)], starts[1 : 1 + len(ids)] = ids, counts, np.cumsum(counts)
    parts = [slots, np.argsort(slots, kind="stable"), active, per_slot, starts]
    targets = [
        meta.token_lora_mapping[: len(slots)],
        meta.token_indices_sorted_by_lora_ids[: len(slots)],
        meta.active_lora_ids,
        meta.num_tokens_per_lora,
        meta.lora_token_start_loc,
    ]
    packed = to_device(np.concatenate(parts).astype(np.int32))
    for target, part in zip(targets, packed.split([len(p) for p in parts]), strict=True):
        target.copy_(part)
    captured = meta.captured_lora_counts
    at = bisect_left(captured, len(ids)) if captured else 0
    meta.num_active_loras_cpu[0] = captured[at] if at < len(captured) else len(ids)
