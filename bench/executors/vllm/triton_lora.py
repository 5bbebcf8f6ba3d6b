"""LoRA for resident slots on a GPU: two small kernels for a linear layer, all of its slices in one launch each.

The shrink splits the input axis over programs and leaves partial sums, which the expand adds up: nothing is zeroed beforehand,
nothing added atomically, so a score repeats bit for bit. A token's slot is looked up directly, nothing is sorted.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

MAX_SLICES = 3
TOKENS, INNER, OUTER, RANKS = 32, 128, 256, 64
"""Tile sizes: tokens, input features per iteration of the shrink, output features of the expand, and ranks at a time in both."""
SPAN, MAX_SPLIT = 512, 16
"""Input features one program of the shrink sums up, and the largest number of programs along that axis."""


@triton.jit
def _pick(index, first, second, third):
    return tl.where(index == 0, first, tl.where(index == 1, second, third))


@triton.jit
def _load(part, first, second, third, at, valid):
    """From the tensor of the slice numbered `part`, zeros where not valid."""
    if part == 0:
        found = tl.load(first + at, mask=valid, other=0.0)
    elif part == 1:
        found = tl.load(second + at, mask=valid, other=0.0)
    else:
        found = tl.load(third + at, mask=valid, other=0.0)
    return found


@triton.jit
def _lora_shrink(
    x, partial, a0, a1, a2, mapping, tokens, inner, x_stride, span,
    RANK: tl.constexpr, WIDE: tl.constexpr, SLOTS: tl.constexpr, SPLIT: tl.constexpr,
    BM: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    split, pair = tl.program_id(1), tl.program_id(2) // (WIDE // BR)
    part, slot = pair // SLOTS, pair % SLOTS
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    mine = tl.load(mapping + row, mask=row < tokens, other=-1) == slot
    if tl.max(mine.to(tl.int32), 0) > 0:
        r = tl.program_id(2) % (WIDE // BR) * BR + tl.arange(0, BR)
        total = tl.zeros((BM, BR), dtype=tl.float32)
        for start in range(0, span, BK):
            k = split * span + start + tl.arange(0, BK)
            left = tl.load(x + row[:, None] * x_stride + k[None, :], mask=mine[:, None] & (k < inner)[None, :], other=0.0)
            at = (slot * RANK + r[None, :]) * inner + k[:, None]
            valid = (k < inner)[:, None] & (r < RANK)[None, :]
            total = tl.dot(left, _load(part, a0, a1, a2, at, valid), total)
        at = ((part * SPLIT + split) * tokens + row)[:, None] * WIDE + r[None, :]
        tl.store(partial + at, total, mask=mine[:, None])


@triton.jit
def _lora_expand(
    y, partial, b0, b1, b2, mapping, tokens, y_stride, n0, n1, n2, scale,
    RANK: tl.constexpr, WIDE: tl.constexpr, SLOTS: tl.constexpr, SPLIT: tl.constexpr, EVEN: tl.constexpr,
    BM: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    part, slot = tl.program_id(2) // SLOTS, tl.program_id(2) % SLOTS
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    mine = tl.load(mapping + row, mask=row < tokens, other=-1) == slot
    out = _pick(part, n0, n1, n2)
    if (tl.max(mine.to(tl.int32), 0) > 0) & (tl.program_id(1) * BN < out):
        added = tl.zeros((BM, BN), dtype=tl.float32)
        for start in range(0, WIDE, BR):
            r = start + tl.arange(0, BR)
            total = tl.zeros((BM, BR), dtype=tl.float32)
            for split in range(SPLIT):
                at = ((part * SPLIT + split) * tokens + row)[:, None] * WIDE + r[None, :]
                total += tl.load(partial + at, mask=mine[:, None], other=0.0)
            at = (slot * out + column[None, :]) * RANK + r[:, None]
            valid = (column < out)[None, :] & (r < RANK)[:, None]
            right = _load(part, b0, b1, b2, at, valid)
            added = tl.dot((total * scale).to(right.dtype), right, added)
        inside = mine[:, None] & (column < out)[None, :]
        first = tl.multiple_of(_pick(part, 0, n0, n0 + n1), EVEN)
        to = y + row[:, None] * y_stride + (first + column)[None, :]
        tl.store(to, (tl.load(to, mask=inside, other=0.0).to(tl.float32) + added).to(y.dtype.element_ty), mask=inside)


def lora_linear(
    y: torch.Tensor, x: torch.Tensor, a: list[torch.Tensor], b: list[torch.Tensor], mapping: torch.Tensor, scale: float
) -> None:
    """y [tokens, sum(out)] += scale * (x [tokens, in] A^T) B^T, slice by slice, each token with its slot's factors.

    a, b: one [slots, 1, rank, in] and [slots, 1, out, rank] for each slice, at most MAX_SLICES; mapping: int32, at least
    [tokens], the slot of each token, any other number for none. Products in the factors' type, sums in float32.
    """
    (tokens, inner), (slots, _, rank, _), slices = x.shape, a[0].shape, len(a)
    outs = [part.size(2) for part in b]
    ranks = min(RANKS, max(16, triton.next_power_of_2(rank)))
    wide = triton.cdiv(rank, ranks) * ranks
    split = min(MAX_SPLIT, triton.next_power_of_2(triton.cdiv(inner, SPAN)))
    span = triton.cdiv(triton.cdiv(inner, split), INNER) * INNER
    partial = torch.empty(slices * split * tokens * wide, dtype=torch.float32, device=x.device)
    three_a, three_b, three_n = ((*given, given[0], given[0])[:3] for given in (a, b, outs))
    tiles, even = triton.cdiv(tokens, TOKENS), 16 if all(out % 16 == 0 for out in outs) else 1
    common = dict(RANK=rank, WIDE=wide, SLOTS=slots, SPLIT=split, BM=TOKENS, BR=ranks)
    _lora_shrink[(tiles, split, slices * slots * (wide // ranks))](
        x, partial, *three_a, mapping, tokens, inner, x.stride(0), span, **common, BK=INNER
    )
    _lora_expand[(tiles, triton.cdiv(max(outs), OUTER), slices * slots)](
        y, partial, *three_b, mapping, tokens, y.stride(0), *three_n, scale, **common, EVEN=even, BN=OUTER
    )
