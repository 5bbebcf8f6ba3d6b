"""One kernel for a fold on a GPU: weight += U V^T with stochastic rounding, each weight read and written once.

The plain form in `workloads.rounding` moves a dozen float32 temporaries of the tensor's size; a fold of a 13B model would cost
more than the steps between two folds. Random numbers are Philox's, keyed by the seed and the element's index; one call of it
serves four neighbours.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK_ROWS, BLOCK_COLUMNS = 64, 128


@triton.jit(do_not_specialize=["seed"])  # every fold has its own seed: none may compile anew
def _fold(weight, u, vt, seed, rows, columns, rank, stride, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    delta = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, rank, BK):
        k = start + tl.arange(0, BK)
        left = tl.load(u + row[:, None] * rank + k[None, :], mask=(row < rows)[:, None] & (k < rank)[None, :], other=0.0)
        right = tl.load(
            vt + k[:, None] * columns + column[None, :], mask=(k < rank)[:, None] & (column < columns)[None, :], other=0.0
        )
        high = (left.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)  # what tf32 keeps of it
        delta += tl.dot(high, right, input_precision="tf32") + tl.dot(left - high, right, input_precision="tf32")
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = weight + row[:, None].to(tl.int64) * stride + column[None, :]
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32) + delta
    nearest = value.to(weight.dtype.element_ty)
    error = value - nearest.to(tl.float32)
    bits = nearest.to(tl.int16, bitcast=True)
    upward = error > 0
    step = tl.where(upward == (bits >= 0), 1, -1).to(tl.int16)
    smallest = tl.where(upward, 1, -32767).to(tl.int16)
    neighbour = tl.where(value == error, smallest, bits + step).to(weight.dtype.element_ty, bitcast=True)
    gap = tl.abs(neighbour.to(tl.float32) - nearest.to(tl.float32))
    quad = tl.program_id(1) * (BN // 4) + tl.arange(0, BN // 4)
    a, b, c, d = tl.rand4x(seed, row[:, None] * tl.cdiv(columns, 4) + quad[None, :])
    draw = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BM, BN))
    tl.store(at, tl.where(draw * gap < tl.abs(error), neighbour, nearest), mask=inside)


def fold_(weight: torch.Tensor, u: torch.Tensor, vt: torch.Tensor, seed: int) -> None:
    """weight [out, in] 16-bit += u [out, rank] @ vt [rank, in] (both float32, contiguous), rounded stochastically in place.

    vt holds values of a 16-bit type, so tf32 holds them exactly, and u takes two tf32 products for float32's precision.
    The last axis of the weight must be contiguous; rows may be strided (a slice of a merged matrix).
    """
    rows, columns = weight.shape
    grid = (triton.cdiv(rows, BLOCK_ROWS), triton.cdiv(columns, BLOCK_COLUMNS))
    stride, rank = weight.stride(0), u.shape[1]
    depth = 16 if rank <= 16 else 32
    _fold[grid](weight, u, vt, seed, rows, columns, rank, stride, BM=BLOCK_ROWS, BN=BLOCK_COLUMNS, BK=depth)


def warm_up(dtype: torch.dtype, rank: int) -> None:
    """Compile the kernel for a rank, so that the first fold of a run takes no longer than the next."""
    weight = torch.zeros(BLOCK_ROWS, BLOCK_COLUMNS, dtype=dtype, device="cuda")
    fold_(weight, weight.float()[:, :rank].contiguous(), weight.float()[:rank].contiguous(), 0)
