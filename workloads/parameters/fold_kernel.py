"""One kernel for a fold on a GPU: weight += U V^T with stochastic rounding, each weight read and written once.

The plain form in `workloads.parameters.rounding` moves a dozen float32 temporaries of the tensor's size, matrix by matrix;
here all matrices of a shape
share a launch. Random numbers are Philox's (seven rounds, the least that passes BigCrush: Salmon et al., SC11), keyed
by the seed, the matrix and the element: one call of it serves eight neighbours, 16 bits each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from workloads.directions import Layout, offsets
from workloads.parameters.shards import Shards

BLOCK_ROWS, BLOCK_COLUMNS = 64, 128
DROPPED = {torch.float16: 13, torch.bfloat16: 16}
"""Bits of a float32 that the type has no room for."""
SMALLEST_NORMAL = {torch.float16: 2.0**-14, torch.bfloat16: 0.0}
"""Below it float16 keeps a fixed spacing and drops more bits; bfloat16 goes down with float32."""


@triton.jit(do_not_specialize=["seed"])  # every fold has its own seed: none may compile anew
def _fold(
    base, table, u, vt, amount, seed, rows, columns, stride, rank, eights,
    EVEN: tl.constexpr, DROPPED: tl.constexpr, NORMAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    entry, wide = table + tl.program_id(1) * 6, tl.cdiv(columns, BN)
    base += tl.multiple_of(tl.load(entry), EVEN)
    u += tl.load(entry + 1) * rank
    vt += tl.multiple_of(tl.load(entry + 2), EVEN) * rank
    row = tl.program_id(0) // wide * BM + tl.arange(0, BM)
    column = tl.program_id(0) % wide * BN + tl.arange(0, BN)
    delta = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, rank, BK):
        k = start + tl.arange(0, BK)
        left = tl.load(u + row[:, None] * rank + k[None, :], mask=(row < rows)[:, None] & (k < rank)[None, :], other=0.0)
        right = tl.load(
            vt + k[:, None] * columns + column[None, :], mask=(k < rank)[:, None] & (column < columns)[None, :], other=0.0
        )
        if left.dtype == tl.float32:
            high = (left.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)  # what tf32 keeps of it
            delta = tl.dot(high, right.to(tl.float32), delta, input_precision="tf32")
            delta = tl.dot(left - high, right.to(tl.float32), delta, input_precision="tf32")
        else:
            delta = tl.dot(left, right, delta)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = base + row[:, None].to(tl.int64) * stride + column[None, :]
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32) + delta * tl.load(amount)

    down, right = tl.load(entry + 4).to(tl.int32), tl.load(entry + 5).to(tl.int32)  # where a part stands in the whole matrix
    eight = (down + row)[:, None] * eights + (right + tl.program_id(0) % wide * (BN // 8) + tl.arange(0, BN // 8))[None, :]
    matrix, zero = eight * 0 + tl.load(entry + 3).to(tl.int32), eight * 0
    a, b, c, d = tl.philox(seed, eight, matrix, zero, zero, n_rounds=7)
    four = tl.join(tl.join(a, b), tl.join(c, d))
    draw = tl.reshape(tl.join(four & 0xFFFF, four >> 16), (BM, BN)) >> (16 - DROPPED)

    signed = value.to(tl.uint32, bitcast=True)
    size = (signed & 0x7FFFFFFF).to(tl.float32, bitcast=True)
    lift = tl.where(size < NORMAL, NORMAL, 0.0)  # into the first binade with this spacing
    bits = (size + lift).to(tl.uint32, bitcast=True) + draw  # carries into what is kept with the odds of what is dropped
    size = (bits >> DROPPED << DROPPED).to(tl.float32, bitcast=True) - lift
    rounded = (size.to(tl.uint32, bitcast=True) | (signed & 0x80000000)).to(tl.float32, bitcast=True)
    tl.store(at, tl.where(value == value, rounded, value).to(base.dtype.element_ty), mask=inside)


class FusedFold:
    """weights: name -> [out, in] 16-bit, all of one type, rows contiguous (they may be slices of a merged matrix); they stay
    where they are. layout: the names and shapes that the flat factor buffers go by; shards: the parts of whole matrices that the
    weights are, which get the random numbers of the whole; a part has to begin at a column that eight divides."""

    def __init__(self, weights: Mapping[str, torch.Tensor], layout: Layout, shards: Shards | None = None) -> None:
        groups = defaultdict(list)
        for index, (name, (above, left)) in enumerate(offsets(layout, 1).items()):
            weight, (down, right, across) = weights[name], _origin(name, weights[name], shards)
            groups[(*weight.shape, weight.stride(0), across)].append((weight, above, left, index, down, right // 8))
        self._groups: list[tuple[torch.Tensor, torch.Tensor, int, int]] = []
        for (_, columns, stride, across), members in groups.items():
            first = min((member[0] for member in members), key=torch.Tensor.data_ptr)
            size, start = first.element_size(), first.data_ptr()
            rows = [((weight.data_ptr() - start) // size, *rest) for weight, *rest in members]
            even = all(number % 8 == 0 for number in (columns, stride, *(n for at, _, left, *_ in rows for n in (at, left))))
            table = torch.tensor(rows, dtype=torch.int64, device=first.device)
            self._groups.append((first, table, 8 if even else 1, -(-across // 8)))

    def __call__(self, u: torch.Tensor, vt: torch.Tensor, amount: torch.Tensor, rank: int, seed: int) -> None:
        """weights += amount * U V^T, rounded stochastically in place.

        u [sum(out) * rank] is float32 or of the weights' type, vt [sum(in) * rank] of the weights' type, both as `Drawn` has
        them; amount: 0-d float32. A u of the weights' type is exact in one product; a float32 one takes two tf32 products,
        which hold vt exactly. seed: below 2^31.
        """
        for first, table, even, eights in self._groups:
            (rows, columns), dtype = first.shape, first.dtype
            warps = 8 if u.dtype == dtype else 4  # on sm_90 94 and 166 registers a thread, none spilled: 16 and 12 warps at once
            grid = (triton.cdiv(rows, BLOCK_ROWS) * triton.cdiv(columns, BLOCK_COLUMNS), len(table))
            _fold[grid](
                first, table, u, vt, amount, seed, rows, columns, first.stride(0), rank, eights,
                EVEN=even, DROPPED=DROPPED[dtype], NORMAL=SMALLEST_NORMAL[dtype],
                BM=BLOCK_ROWS, BN=BLOCK_COLUMNS, BK=16 if rank <= 16 else 32, num_warps=warps,
            )  # fmt: skip


def _origin(name: str, weight: torch.Tensor, shards: Shards | None) -> tuple[int, int, int]:
    """First row, first column and width of the whole matrix that a weight is a part of."""
    if shards is None:
        return 0, 0, weight.size(1)
    shard, across = shards.parts[name], shards.whole[name][1]
    right = 0 if shard.axis == 0 else shard.start
    if right % 8:
        raise ValueError(f"{name}: a part that begins at column {right} gets no random numbers of its own; 8 must divide it")
    return (shard.start if shard.axis == 0 else 0), right, across


def warm_up(dtype: torch.dtype, rank: int) -> None:
    """Compile the kernel for a rank, so that the first fold of a run takes no longer than the next."""
    weight = torch.zeros(BLOCK_ROWS, BLOCK_COLUMNS, dtype=dtype, device="cuda")
    fold = FusedFold({"w": weight}, {"w": tuple(weight.shape)})
    vt, amount = weight.new_zeros(BLOCK_COLUMNS * rank), torch.zeros((), device="cuda")
    for u_type in (dtype, torch.float32):
        fold(weight.new_zeros(BLOCK_ROWS * rank, dtype=u_type), vt, amount, rank, 0)
