"""The CPU's operators: all that vLLM's dense decoders name are there, and each computes its formula."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.executors.vllm.cpu_operators  # noqa: F401 - registers the operators

NAMED = re.compile(r"torch\.ops\._C\.([a-z_0-9]+)")
LAYERS = (
    "model_executor/layers/activation.py",
    "model_executor/layers/layernorm.py",
    "model_executor/layers/linear.py",
    "model_executor/layers/logits_processor.py",
    "model_executor/layers/vocab_parallel_embedding.py",
    "model_executor/layers/fused_moe/activation.py",
    "v1/attention/backends/cpu_attn.py",
    "v1/sample/ops/topk_topp_sampler.py",
    "v1/sample/sampler.py",
    "v1/worker/cpu_worker.py",
)
WRAPPED = ("rotary_embedding", "rms_norm", "fused_add_rms_norm", "cpu_attention_with_kv_cache", "cpu_attn_reshape_and_cache",
           "get_scheduler_metadata")  # fmt: skip
"""What layers reach through vllm/_custom_ops.py."""
ELSEWHERE = {
    "activation_lut_bf16": "asked for on ARM, where the wheel has it",
    "cpu_attn_has_isa": "asked of RISC-V",
    "masked_moe_activation": "asked by kernels of experts on GPUs",
    "relu2_no_mul": "asked of XPUs",
    "situ": "vLLM's way of writing both names that begin so",
    "situ_and_mul_quant": "asked by quantised experts on GPUs",
    "swiglustep_and_mul": "asked of XPUs",
}


def vllm_sources() -> Path:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def test_every_operator_that_dense_decoders_name_is_there() -> None:
    root = vllm_sources()
    named = {name for file in LAYERS for name in NAMED.findall((root / file).read_text())}
    wrapped = set(NAMED.findall((root / "_custom_ops.py").read_text()))
    assert {*WRAPPED} <= wrapped and {"gelu_new", "silu_and_mul", "gelu_tanh_and_mul", "relu_squared"} <= named
    files = [*(root / "model_executor/models").glob("*.py"), *(root / "model_executor/layers/rotary_embedding").glob("*.py")]
    assert len(files) > 200
    named |= {name for file in files for name in NAMED.findall(file.read_text())}
    missing = {name for name in (named | {*WRAPPED}) - ELSEWHERE.keys() if not hasattr(torch.ops._C, name)}
    assert not missing


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 * (1 + torch.special.erf(x / math.sqrt(2)))


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + torch.exp(-x))


def clamped(gate: torch.Tensor, up: torch.Tensor, limit: float, alpha: float, beta: float) -> torch.Tensor:
    gate, up = torch.minimum(gate, torch.tensor(limit)), torch.clip(up, -limit, limit)
    return gate / (1 + torch.exp(-alpha * gate)) * (up + beta)


def situ(x: torch.Tensor, beta: float) -> torch.Tensor:
    return beta * torch.tanh(x / beta) / (1 + torch.exp(-x))


GATED: dict[str, tuple[Any, tuple[float, ...]]] = {
    "silu_and_mul": (lambda a, b: silu(a) * b, ()),
    "mul_and_silu": (lambda a, b: a * silu(b), ()),
    "gelu_and_mul": (lambda a, b: gelu(a) * b, ()),
    "gelu_tanh_and_mul": (lambda a, b: gelu_tanh(a) * b, ()),
    "fatrelu_and_mul": (lambda a, b, least: torch.where(a > least, a, torch.zeros_like(a)) * b, (0.5,)),
    "silu_and_mul_with_clamp": (clamped, (1.0, 1.5, 0.5)),
    "situ_and_mul": (lambda a, b, beta, most: situ(a, beta) * most * torch.tanh(b / most), (1.5, 2.5)),
}
ALONE = {
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_tanh": gelu_tanh,
    "gelu_quick": lambda x: x / (1 + torch.exp(-1.702 * x)),
    "relu_squared": lambda x: torch.where(x > 0, x * x, torch.zeros_like(x)),
}


@pytest.mark.parametrize("name", [*GATED, *ALONE, "swigluoai_and_mul"])
def test_an_activation_is_its_formula(name: str) -> None:
    x = torch.linspace(-6, 6, 96, dtype=torch.float64).roll(7).view(4, 24)
    if name in ALONE:
        out, expected, more = torch.empty_like(x), ALONE[name](x), ()
    else:
        out = x.new_empty(4, 12)
        formula, more = GATED.get(name, (lambda *given: clamped(*given, 1.0), (1.3, 2.0)))
        halves = (x[:, ::2], x[:, 1::2]) if name not in GATED else (x[:, :12], x[:, 12:])
        order = (more[1], more[0]) if name not in GATED else more  # limit before alpha
        expected = formula(*halves, *order)
    getattr(torch.ops._C, name)(out, x, *more)
    assert torch.allclose(out, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("weighted", [True, False])
def test_norms_are_their_formula(weighted: bool) -> None:
    random = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(5, 16, generator=random) for _ in range(2))
    weight = torch.randn(16, generator=random) if weighted else None
    out, added, kept = torch.empty_like(x), x.clone(), residual.clone()
    torch.ops._C.rms_norm(out, x, weight, 1e-3)
    torch.ops._C.fused_add_rms_norm(added, kept, weight, 1e-3)
    total = x.double() + residual.double()
    for found, given in ((out, x.double()), (added, total)):
        size = [(sum(v * v for v in row.tolist()) / 16 + 1e-3) ** 0.5 for row in given]
        expected = given / torch.tensor(size, dtype=torch.float64)[:, None] * (1.0 if weight is None else weight.double())
        assert torch.allclose(found.double(), expected, rtol=0, atol=1e-6)
    assert torch.allclose(kept.double(), total, rtol=0, atol=1e-6)


@pytest.mark.parametrize("neox", [True, False])
@pytest.mark.parametrize("offset", [0, 3])
def test_rotary_embeddings_turn_pairs_by_their_angle(neox: bool, offset: int) -> None:
    """Two query heads of ten, of which six numbers from the offset on turn; key, and the way back, too."""
    random, heads, head, half = torch.Generator().manual_seed(0), 2, 10, 3
    positions = torch.tensor([0, 4, 2])
    angles = torch.arange(6)[:, None] * torch.tensor([1.0, 0.3, 0.05], dtype=torch.float64)
    cache = torch.cat([angles.cos(), angles.sin()], dim=1)
    query, key = (torch.randn(3, n * head, generator=random, dtype=torch.float64) for n in (heads, 1))
    turned = query.clone(), key.clone()
    more = (offset, False) if offset else ()
    torch.ops._C.rotary_embedding(positions, *turned, head, cache, neox, *more)
    for given, found in zip((query, key), turned, strict=True):
        expected = given.clone().view(3, -1, head)
        for token, place in enumerate(positions.tolist()):
            for pair in range(half):
                i, j = (pair, pair + half) if neox else (2 * pair, 2 * pair + 1)
                turn = torch.polar(torch.tensor(1.0, dtype=torch.float64), angles[place, pair])
                complex_ = torch.complex(expected[token, :, offset + i], expected[token, :, offset + j]) * turn
                expected[token, :, offset + i], expected[token, :, offset + j] = complex_.real.clone(), complex_.imag.clone()
        assert torch.allclose(found.view(3, -1, head), expected, rtol=0, atol=1e-12)
    torch.ops._C.rotary_embedding(positions, *turned, head, cache, neox, offset, True)
    assert torch.allclose(turned[0], query, rtol=0, atol=1e-12)


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 7},
    "a window longer than any row": {"window": 500},
    "soft cap": {"softcap": 1.5},
    "ALiBi": {"slopes": [0.5, 0.25, 0.1, 0.05]},
    "sinks": {"sinks": [0.3, -1.0, 2.0, 0.0]},
    "all of them": {"window": 9, "softcap": 2.0, "slopes": [0.5, 0.25, 0.1, 0.05], "sinks": [0.3, -1.0, 2.0, 0.0]},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("counts", ["all", "last", "some"])
def test_attention_over_paged_rows(counts: str, form: str) -> None:
    """Ragged prefill, single new tokens over a longer past, and rows that go on: one softmax per query and head in float64."""
    given = {"window": -1, "softcap": 0.0, "slopes": None, "sinks": None} | FORMS[form]
    slopes, sinks = (None if given[name] is None else torch.tensor(given[name]) for name in ("slopes", "sinks"))
    random, block, heads, kv_heads, size = torch.Generator().manual_seed(0), 16, 4, 2, 8
    lengths = [5, 16, 33, 17, 2]
    new = {"all": lengths, "last": [1] * 5, "some": [3, 16, 20, 1, 2]}[counts]
    table = torch.randperm(20, generator=random)[: 5 * 3].view(5, 3).int()
    k_cache, v_cache = (torch.randn(20, kv_heads, block, size, generator=random) for _ in range(2))
    q = torch.randn(sum(new), heads, size, generator=random)
    start = torch.tensor([0, *torch.tensor(new).cumsum(0).tolist()], dtype=torch.int32)
    out, none = torch.full_like(q, float("nan")), torch.zeros(1, dtype=torch.int8)
    torch.ops._C.cpu_attention_with_kv_cache(
        q, k_cache, v_cache, out, start, torch.tensor(lengths), 0.5, True, slopes, given["window"], table, given["softcap"],
        none, sinks, None, 1.0, 1.0, "auto",
    )  # fmt: skip
    for row, (length, count) in enumerate(zip(lengths, new, strict=True)):
        keys, values = (c[table[row].long()].transpose(1, 2).flatten(0, 1)[:length].double() for c in (k_cache, v_cache))
        for j in range(count):
            position, at = length - count + j, int(start[row]) + j
            first = max(0, position + 1 - given["window"]) if given["window"] > 0 else 0
            for head in range(heads):
                seen = range(first, position + 1)
                scores = [0.5 * float(keys[i, head // 2] @ q[at, head].double()) for i in seen]
                if given["softcap"]:
                    scores = [given["softcap"] * math.tanh(score / given["softcap"]) for score in scores]
                if slopes is not None:
                    scores = [score + given["slopes"][head] * (i - position) for score, i in zip(scores, seen, strict=True)]
                weights = [math.exp(score) for score in scores]
                total = sum(weights) + (math.exp(given["sinks"][head]) if sinks is not None else 0.0)
                expected = sum(w / total * values[i, head // 2] for w, i in zip(weights, seen, strict=True))
                assert torch.allclose(out[at, head].double(), expected, rtol=0, atol=2e-6)


def test_masks_that_are_not_supported_are_refused() -> None:
    q, cache, start = torch.zeros(2, 1, 8), torch.zeros(2, 1, 16, 8), torch.tensor([0, 2], dtype=torch.int32)
    table, none = torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, dtype=torch.int8)
    with pytest.raises(ValueError, match="windows to both sides"):
        torch.ops._C.cpu_attention_with_kv_cache(
            q, cache, cache, q.clone(), start, torch.tensor([2]), 1.0, False, None, 4, table, 0.0, none, None, None, 1.0, 1.0, ""
        )


def test_tokens_are_the_likeliest_or_drawn_by_their_rows_seed() -> None:
    logits = torch.tensor([0.0, 2.0, 1.0]).repeat(4000, 1)
    assert torch.ops._C.greedy_argmax(logits).tolist() == [1] * len(logits)
    drawn = torch.ops._C.fused_gumbel_argmax(logits, torch.arange(len(logits)))
    assert torch.equal(drawn[:10], torch.ops._C.fused_gumbel_argmax(logits[:10], torch.arange(10)))
    shares = drawn.bincount(minlength=3) / len(logits)
    assert torch.allclose(shares, logits[0].softmax(0), atol=0.03)  # four standard deviations
