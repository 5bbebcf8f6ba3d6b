"""Attention over whole rows on a CPU, against float64 row by row."""

import numpy as np
import pytest
import torch

from bench.data import Example
from bench.executors.vllm.cpu_rows import TorchRows
from bench.executors.vllm.packing import pack
from workloads.tasks.ragged import full_rows


def attended(lengths, heads, kv_heads, head, dtype=torch.float32, seed=0):
    """What the kernel gives for rows of random queries, keys and values, and what float64 does."""
    examples = tuple(Example(tuple(range(1, length)), ((7,),), 0) for length in lengths)
    rows = full_rows(examples, 1)
    assert rows.lengths.tolist() == list(lengths)
    tokens = sum(lengths)
    packed = pack(rows, len(lengths) + 2, tokens + 5, 16)  # rows and tokens of padding stand last
    made = [np.random.default_rng([seed, length]).standard_normal((length, heads + 2 * kv_heads, head)) for length in lengths]
    qkv = torch.zeros(tokens + 5, heads + 2 * kv_heads, head, dtype=dtype)
    qkv[:tokens] = torch.from_numpy(np.concatenate(made)).to(dtype)
    q, k, v = qkv.split([heads, kv_heads, kv_heads], 1)
    kernel, out = TorchRows(), torch.full((tokens + 5, heads, head), 7.0, dtype=dtype)
    kernel.take(packed, [])
    kernel(q, k, v, 0.3, out)
    truth, start = [], 0
    for length in lengths:
        part = [x[start : start + length].double().transpose(0, 1) for x in (q, k, v)]
        keys, values = (x.repeat_interleave(heads // kv_heads, 0) for x in part[1:])
        scores = (0.3 * part[0] @ keys.transpose(1, 2)).masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        truth.append((scores.softmax(-1) @ values).transpose(0, 1))
        start += length
    assert (out[tokens:] == 7).all()
    return out[:tokens], torch.cat(truth)


@pytest.mark.parametrize(
    ("lengths", "heads", "kv_heads", "head"),
    [((1,), 1, 1, 8), ((14, 9, 31, 1, 8, 5, 14), 2, 2, 16), ((8, 16, 8), 4, 2, 64), ((150, 7, 130), 3, 1, 80)],
)
def test_rows_attend_to_themselves_alone(lengths, heads, kv_heads, head):
    found, truth = attended(lengths, heads, kv_heads, head)
    assert (found.double() - truth).norm() <= 1e-6 * truth.norm()


def test_sixteen_bits_round_once():
    found, truth = attended((14, 9, 31), 2, 2, 16, torch.bfloat16)
    assert (found.double() - truth).norm() <= 6e-3 * truth.norm()


def test_a_rows_bits_do_not_depend_on_its_neighbours():
    alone, _ = attended((13,), 2, 2, 16)
    among, _ = attended((9, 13, 31, 16), 2, 2, 16)
    assert torch.equal(alone, among[9:22])
