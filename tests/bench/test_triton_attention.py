"""Attention over packed rows, on the GPU or else in Triton's interpreter, against float64 row by row."""

from __future__ import annotations

from collections.abc import Callable

PROGRAM = """
import sys, torch
torch.set_default_device(sys.argv[1])
from bench.executors.vllm.triton_attention import packed_attention

def agree(dtype, head, heads, kv_heads, lengths, padding):
    torch.manual_seed(0)
    tokens, scale = sum(lengths) + padding, 1.7 / head**0.5
    first, start = [], 0
    for length in lengths:
        first += [start] * length
        start += length
    first += list(range(start, tokens)) + [12345]  # padding stands alone; longer than the batch
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head + 3).to(dtype)[:, :-3]  # as a fused projection leaves them
    q, k, v = (part.unflatten(-1, (-1, head)) for part in qkv.split([heads * head, kv_heads * head, kv_heads * head], -1))
    out = torch.full((tokens + 1, heads, head), 7.0, dtype=dtype)
    packed_attention(q, k, v, torch.tensor(first, dtype=torch.int32), scale, out[:tokens])
    truth = torch.empty(tokens, heads, head, dtype=torch.float64)
    for token in range(tokens):
        seen = slice(first[token], token + 1)
        for h in range(heads):
            weights = (scale * k[seen, h // (heads // kv_heads)].double() @ q[token, h].double()).softmax(0)
            truth[token, h] = weights @ v[seen, h // (heads // kv_heads)].double()
    error = (out[:tokens].double() - truth).norm() / truth.norm()
    assert error < {torch.float16: 1e-3, torch.float32: 1e-6 if sys.argv[1] == "cpu" else 2e-3}[dtype], (head, lengths, error)
    assert (out[tokens] == 7).all()

half, single = torch.float16, torch.float32
agree(single, 16, 2, 2, [14, 9, 31, 1, 1, 5], 0)
agree(half, 64, 2, 1, [3] * 11 + [40], 5)         # several rows a tile; grouped queries; a padded size
agree(single, 80, 3, 3, [150, 7, 130], 2)         # rows longer than both tiles; a head that is no power of two
agree(half, 128, 4, 2, [32, 64, 1], 31)           # rows that end where tiles do
agree(single, 8, 1, 1, [1], 0)
"""


def test_packed_rows_attend_to_themselves_alone(run_kernels: Callable[..., None]) -> None:
    run_kernels(PROGRAM)
