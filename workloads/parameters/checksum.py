"""A checksum of tensors computed where they live: integer arithmetic only, so neither threads nor devices change it.

Every element's bits are multiplied by an odd number of their own and summed modulo 2^64: one changed element always shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch

from workloads.parameters.shards import Place

CHUNK = 1 << 22
STRIDE = 0x1E3779B97F4A7C16  # even, so that STRIDE * i + 1 is odd
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


Sums = dict[str, tuple[str, tuple[int, ...], dict[int, int]]]
"""Of each tensor: its type, its whole shape, and what each part of it adds to its sum, by what tells the parts apart."""


def checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """16 hex digits over names, types, shapes and bits; reads one number per tensor back, all of them at once."""
    ordered = sorted(tensors.items())
    sums = [part_sum(tensor) for _, tensor in ordered]
    values = torch.stack(sums).tolist() if sums else []
    return _digest((name, str(t.dtype), tuple(t.shape), value) for (name, t), value in zip(ordered, values, strict=True))


def joined(parts: Sequence[Sums]) -> str:
    """The same from the parts of several processes; one that several of them hold counts once."""
    found = []
    for name, (dtype, shape, _) in sorted(parts[0].items()):
        once = {owner: value for part in parts for owner, value in part[name][2].items()}
        total = sum(once.values()) % 2**64
        found.append((name, dtype, shape, total - 2**64 if total >= 2**63 else total))
    return _digest(found)


def part_sum(tensor: torch.Tensor, place: Place | None = None) -> torch.Tensor:
    """Of a tensor, or of a part of one that has that place in the whole: 0-d int64."""
    bits = tensor.detach().contiguous().view(-1).view(BITS[tensor.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, bits.numel(), CHUNK):
        part = bits[start : start + CHUNK].long()
        stop = start + part.numel()
        index = torch.arange(start, stop, device=tensor.device) if place is None else place.indices(start, stop, tensor.device)
        total += (part * (index * STRIDE + 1)).sum()
    return total


def _digest(entries: Iterable[tuple[str, str, tuple[int, ...], int]]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for entry in entries:
        digest.update(repr(entry).encode())
    return digest.hexdigest()
