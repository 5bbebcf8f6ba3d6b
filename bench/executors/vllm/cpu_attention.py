"""Attention over paged keys and values on the CPU: vLLM's CPU backend with its kernels in PyTorch.

Attention groups the rows by number of KV blocks and of queries and makes one call per group, so a ragged batch costs little
padding and no Python per row. What a row is padded to depends on that row alone, so its bits do not depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from bench.api import mark
from bench.executors.vllm.cpu_library import operator


@operator(
    "get_scheduler_metadata(int reqs, int heads, int kv_heads, int dim, Tensor seq_lens, ScalarType dtype,"
    " Tensor start, bool causal, int window, str isa, bool split, Tensor? dynamic, str kv_dtype='auto') -> Tensor"
)
def get_scheduler_metadata(*_: Any) -> torch.Tensor:
    return torch.zeros(1, dtype=torch.int8)


@operator("compute_slot_mapping_kernel_impl(Tensor start, Tensor positions, Tensor table, Tensor(a!) slots, int block) -> ()")
def compute_slot_mapping(
    start: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, slots: torch.Tensor, block: int
) -> None:
    lengths = (start[1:] - start[:-1]).long()
    total = int(lengths.sum())
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    at = positions[:total].long()
    slots.fill_(-1)
    slots[:total] = table[row, at // block].to(slots.dtype) * block + (at % block).to(slots.dtype)


@operator(
    "cpu_attn_reshape_and_cache(Tensor key, Tensor value, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor slots,"
    " str isa, float k_scale, float v_scale, str kv_dtype) -> ()"
)
def reshape_and_cache(
    key: torch.Tensor, value: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, slots: torch.Tensor, *_: Any
) -> None:
    """key, value [tokens, kv_heads, head]; caches [blocks, kv_heads, block, head]; slots [tokens], block * size + offset."""
    with mark("kv_write"):
        block, offset = slots // k_cache.size(2), slots % k_cache.size(2)
        k_cache[block, :, offset] = key[: slots.numel()]
        v_cache[block, :, offset] = value[: slots.numel()]


WIDTH = 8
"""Several queries of a row that goes on from earlier tokens are padded to a multiple of so many."""


@dataclass(frozen=True)
class Scores:
    """What a layer does to its scores, the products of queries and keys.

    scale     of the scores
    causal    a query sees no key after it
    window    most keys a query sees, its own included; 0: all before it
    softcap   scores become softcap tanh(score / softcap); 0: they stay
    slopes    ALiBi's [heads]: slope * (key's position - query's) is added
    sinks     [heads]: one more score in every softmax, of a key that has no value
    """

    scale: float
    causal: bool
    window: int
    softcap: float
    slopes: torch.Tensor | None
    sinks: torch.Tensor | None

    @property
    def plain(self) -> bool:
        return not self.softcap and self.slopes is None and self.sinks is None


@operator(
    "cpu_attention_with_kv_cache(Tensor q, Tensor k_cache, Tensor v_cache, Tensor(a!) out, Tensor start, Tensor seq_lens,"
    " float scale, bool causal, Tensor? alibi, int window, Tensor table, float softcap, Tensor meta, Tensor? sinks,"
    " Tensor? dynamic, float k_scale, float v_scale, str kv_dtype) -> ()"
)
def attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    out: torch.Tensor,
    start: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    causal: bool,
    alibi: torch.Tensor | None,
    window: int,
    table: torch.Tensor,
    softcap: float,
    meta: torch.Tensor,
    sinks: torch.Tensor | None,
    dynamic: torch.Tensor | None,
    *_: Any,
) -> None:
    """q, out [tokens, heads, head]: row i holds tokens start[i]:start[i+1], the last of its seq_lens[i] positions."""
    if dynamic is not None or (window > 0 and not causal):
        raise ValueError("attention on the CPU: windows to both sides and masks of a row's own are not supported")
    scores = Scores(scale, causal, max(window, 0), softcap, alibi, sinks)
    with mark("attention"):
        block = k_cache.size(2)
        counts, lengths = start[1:] - start[:-1], seq_lens[: len(start) - 1]
        blocks = (lengths + block - 1) // block
        prefill = counts == lengths  # left-aligned: the padding keys are only seen by padding queries
        padded = torch.where(counts == 1, 1, (counts + WIDTH - 1) // WIDTH * WIDTH)
        shapes = torch.stack([blocks, torch.where(prefill, blocks * block, padded), prefill], dim=1)
        shapes[(counts == 0) | (lengths == 0)] = 0
        found, group_of = shapes.unique(dim=0, return_inverse=True)
        for group, (deep, width, whole) in enumerate(found.tolist()):
            if deep:
                rows = (group_of == group).nonzero(as_tuple=True)[0]
                part = start[rows].long(), counts[rows], lengths[rows], table[rows, :deep]
                _attend(q, k_cache, v_cache, out, *part, width, bool(whole), scores)


def _attend(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    out: torch.Tensor,
    first: torch.Tensor,
    counts: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    width: int,
    whole: bool,
    scores: Scores,
) -> None:
    """One call for rows with as many blocks and, padded, as many queries: table [rows, blocks], first, counts, lengths [rows].
    whole: they begin at their first position."""
    span = table.size(1) * k_cache.size(2)
    k, v = (cache[table.long()].transpose(1, 2).flatten(2, 3) for cache in (k_cache, v_cache))
    at = torch.arange(width)
    inside = at < counts[:, None]
    index = torch.where(inside, first[:, None] + at, first[:, None])
    position = (lengths - counts)[:, None] + at
    windowed = 0 < scores.window < span
    mask, queries = None, q[index].transpose(1, 2)
    if not (scores.causal and whole) or windowed or not scores.plain:
        limit = position + 1 if scores.causal else lengths[:, None].expand(-1, width)
        reach = torch.arange(span)
        mask = reach < limit[:, :, None]
        if windowed:
            mask &= reach > position[:, :, None] - scores.window
    if scores.plain:
        o = F.scaled_dot_product_attention(
            queries,
            k,
            v,
            attn_mask=None if mask is None else mask[:, None],
            is_causal=mask is None,
            scale=scores.scale,
            enable_gqa=k.size(1) != q.size(1),
        )
    else:
        assert mask is not None
        o = _written_out(queries, k, v, mask, position, scores)
    out[index[inside]] = o.transpose(1, 2)[inside].view(-1, *out.shape[1:])


def _written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, position: torch.Tensor, form: Scores
) -> torch.Tensor:
    """In float32: q [rows, heads, width, head], k and v [rows, kv_heads, span, head], mask [rows, width, span], position of each
    query [rows, width]."""
    share = q.size(1) // k.size(1)
    k, v = (x.float().repeat_interleave(share, 1) for x in (k, v))
    scores = q.float() @ k.transpose(2, 3) * form.scale
    if form.softcap:
        scores = form.softcap * torch.tanh(scores / form.softcap)
    if form.slopes is not None:
        behind = torch.arange(k.size(2)) - position[:, None, :, None]
        scores = scores + form.slopes.float()[:, None, None] * behind
    scores = scores.masked_fill(~mask[:, None], -torch.inf)
    if form.sinks is not None:
        sink = form.sinks.float().view(1, -1, 1, 1).expand(len(scores), -1, scores.size(2), 1)
        weights = torch.cat([scores, sink], dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return (weights @ v).to(q.dtype)
