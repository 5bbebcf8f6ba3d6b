"""The `torch.ops._C` operators vLLM 0.26's CPU platform calls and its stock wheel lacks, in PyTorch.

Attention groups the rows by number of KV blocks and makes one call per group, so a ragged batch costs little padding
and no Python per row. What a row is padded to depends on that row alone, so its bits do not depend on its neighbours.
Importing the module registers the operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from bench.api import mark

library = torch.library.Library("_C", "FRAGMENT")


def operator(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        library.define(schema)
        library.impl(schema.split("(")[0], function, "CompositeExplicitAutograd")
        return function

    return register


@operator("init_cpu_memory_env(int[] nodes) -> str")
def init_cpu_memory_env(nodes: list[int]) -> str:
    return ""


@operator(
    "get_scheduler_metadata(int reqs, int heads, int kv_heads, int dim, Tensor seq_lens, ScalarType dtype,"
    " Tensor start, bool causal, int window, str isa, bool split, Tensor? dynamic) -> Tensor"
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
    if alibi is not None or window > 0 or softcap or sinks is not None or dynamic is not None:
        raise ValueError("attention on the CPU: ALiBi, sliding windows, soft caps and sinks are not supported")
    with mark("attention"):
        block = k_cache.size(2)
        counts, lengths = start[1:] - start[:-1], seq_lens[: len(start) - 1]
        blocks = (lengths + block - 1) // block
        form = torch.where(counts == lengths, PREFILL, counts.clamp(max=CHUNK))
        keys = torch.where(counts > 0, blocks * FORMS + form, -1)  # rows of a group share shape and mask form
        for group in keys.unique().tolist():
            if group < 0:
                continue
            rows = (keys == group).nonzero(as_tuple=True)[0]
            _attend(
                q,
                k_cache,
                v_cache,
                out,
                start[rows].long(),
                counts[rows],
                lengths[rows],
                table[rows, : group // FORMS],
                group % FORMS,
                scale,
                causal,
            )


PREFILL, DECODE, CHUNK = range(3)
FORMS = 3
"""A row that begins at its first position, one with one token after others, and one with several."""


def _attend(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    out: torch.Tensor,
    first: torch.Tensor,
    counts: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    form: int,
    scale: float,
    causal: bool,
) -> None:
    """One call for rows with the same number of blocks and of one form: table [rows, blocks], first, counts, lengths [rows]."""
    span = table.size(1) * k_cache.size(2)
    width = 1 if form == DECODE else span
    k, v = (cache[table.long()].transpose(1, 2).flatten(2, 3) for cache in (k_cache, v_cache))
    at = torch.arange(width)
    inside = at < counts[:, None]
    index = torch.where(inside, first[:, None] + at, first[:, None])
    position = (lengths - counts)[:, None] + at
    prefill = causal and form == PREFILL  # left-aligned: the padding keys are only seen by padding queries
    mask = None
    if not prefill:
        limit = position + 1 if causal else lengths[:, None].expand(-1, width)
        reach = torch.arange(span)
        mask = (reach < limit[:, :, None])[:, None]
    o = F.scaled_dot_product_attention(
        q[index].transpose(1, 2), k, v, attn_mask=mask, is_causal=prefill, scale=scale, enable_gqa=k.size(1) != q.size(1)
    )
    out[index[inside]] = o.transpose(1, 2)[inside].view(-1, *out.shape[1:])


@operator("silu_and_mul(Tensor(a!) out, Tensor x) -> ()")
def silu_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    """out [..., d] = silu(x[..., :d]) * x[..., d:]."""
    gate, up = x.chunk(2, dim=-1)
    torch.mul(F.silu(gate), up, out=out)


@operator("rotary_embedding(Tensor positions, Tensor(a!) query, Tensor(b!)? key, int head, Tensor cos_sin, bool neox) -> ()")
def rotary_embedding(
    positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None, head: int, cos_sin: torch.Tensor, neox: bool
) -> None:
    """Rotate query and key [tokens, heads * head] in place; cos_sin [positions, rotary], cosines before sines."""
    cos, sin = cos_sin[positions.flatten()].to(query.dtype)[:, None].chunk(2, dim=-1)
    half = cos.size(-1)
    for tensor in (query, key):
        if tensor is None:
            continue
        x = tensor.view(len(cos), -1, head)[..., : 2 * half]
        one, two = (x[..., :half], x[..., half:]) if neox else (x[..., ::2], x[..., 1::2])
        rotated = one * cos - two * sin, two * cos + one * sin
        one.copy_(rotated[0])
        two.copy_(rotated[1])
