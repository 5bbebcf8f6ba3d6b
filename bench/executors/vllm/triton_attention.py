"""Causal attention over rows that lie one behind the other, on a GPU: keys and values are read where the projections left them.

A tile of queries holds several short rows, and the keys it may see are the same tile and what its first row has before it: for
prompts of a few dozen tokens that is one or two tiles of keys. Nothing is written to a KV pool and nothing read back, and the
layout is one integer a token, so no host or device plans the work. Softmax over the keys block by block (arXiv 2205.14135),
sums in float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

QUERIES, KEYS = 32, 64
"""Tile sizes in tokens; keys of more than 256 bytes are taken half as many at a time."""
WIDEST = 256
"""The largest head that fits a program's shared memory."""
LOG2_E = 1.4426950408889634


@triton.jit
def _packed(
    q, k, v, out, first, tokens, q_stride, k_stride, v_stride, out_stride, scale,
    GROUP: tl.constexpr, HEAD: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    row, d = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, BD)
    real, wide = row < tokens, d < HEAD
    begin = tl.load(first + row, mask=real, other=tokens)
    queries = tl.load(q + row[:, None] * q_stride + (head * HEAD + d)[None, :], mask=real[:, None] & wide[None, :], other=0.0)
    at = head // GROUP * HEAD + d
    top = tl.full((BM,), float("-inf"), dtype=tl.float32)
    total, mean = tl.zeros((BM,), dtype=tl.float32), tl.zeros((BM, BD), dtype=tl.float32)
    end = tl.minimum(tl.program_id(0) * BM + BM, tokens)
    for start in tl.range(tl.min(begin, 0), end, BN, num_stages=1):  # one or two turns: nothing to load ahead
        column = start + tl.arange(0, BN)
        inside = (column < end)[:, None] & wide[None, :]
        keys = tl.load(k + column[:, None] * k_stride + at[None, :], mask=inside, other=0.0)
        scores = tl.dot(queries, tl.trans(keys)) * scale
        seen = (column[None, :] >= begin[:, None]) & (column[None, :] <= row[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # a row that has seen no key yet
        weights, shrunk = tl.exp2(scores - base[:, None]), tl.exp2(top - base)
        values = tl.load(v + column[:, None] * v_stride + at[None, :], mask=inside, other=0.0)
        total = total * shrunk + tl.sum(weights, 1)
        mean = tl.dot(weights.to(values.dtype), values, mean * shrunk[:, None])
        top = higher
    to = out + row[:, None] * out_stride + (head * HEAD + d)[None, :]
    tl.store(to, (mean / tl.where(real, total, 1.0)[:, None]).to(out.dtype.element_ty), mask=real[:, None] & wide[None, :])


def packed_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, first: torch.Tensor, scale: float, out: torch.Tensor
) -> None:
    """out [tokens, heads, head] = softmax(scale * query key^T) value, each token over its own row up to itself.

    query: [tokens, heads, head]; key, value: [tokens, KV heads, head], each a whole fraction of the heads; tokens may be strided.
    first: int32, at least [tokens], the index of the first token of each token's row. No aliasing of out with the others.
    """
    tokens, heads, head = query.shape
    grid = (triton.cdiv(tokens, QUERIES), heads)
    keys = KEYS if head * key.element_size() <= 256 else KEYS // 2
    strides = (query.stride(0), key.stride(0), value.stride(0), out.stride(0))
    _packed[grid](
        query, key, value, out, first, tokens, *strides, scale * LOG2_E,
        GROUP=heads // key.shape[1], HEAD=head, BD=max(16, triton.next_power_of_2(head)), BM=QUERIES, BN=keys,
    )  # fmt: skip
