"""Counts against torch's own FLOP counter, bounds against arithmetic by hand, ceilings against what cannot be."""

from types import SimpleNamespace

import pytest
import torch
from plain_loop import tiny_spec
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig

from bench.data import Example, Minibatches
from bench.recorders import ceilings
from bench.recorders.counters import Counters
from bench.recorders.roofline import Roofline, bound
from bench.recorders.shapes import ModelShapes, Required

CPU = torch.device("cpu")
SMALL = dict(vocab_size=97, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64)
CONFIGS = [
    OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=16),  # like opt-350m, with projections in and out
    LlamaConfig(**SMALL, intermediate_size=48, num_key_value_heads=2),
]


def saved(config, folder):
    config.save_pretrained(folder)
    return SimpleNamespace(path=str(folder), trust_remote_code=False)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_flops_of_a_forward_are_those_torch_counts(config, tmp_path):
    tokens = torch.ones(5, 11, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        AutoModelForCausalLM.from_config(config, attn_implementation="eager")(tokens)
    counted = {str(op).split(".")[-1]: flops for op, flops in counter.get_flop_counts()["Global"].items()}
    found = ModelShapes.of(saved(config, tmp_path)).flops(5 * 11, 5, 5 * 11 * 97)
    assert found["linear"] + found["head"] == counted["mm"] + counted.get("addmm", 0)
    square_to_causal = 12 / (2 * 11)  # eager attention computes the whole square of 11 x 11
    assert found["attention"] == pytest.approx(counted["bmm"] * square_to_causal)
    assert found["total"] == found["linear"] + found["attention"] + found["head"]


def test_positions_that_nobody_reads_need_keys_and_values_of_the_last_layer_alone(tmp_path):
    """Of a Llama, whose k and v are half as wide as q, by hand."""
    shapes = ModelShapes.of(saved(CONFIGS[1], tmp_path))
    whole, cut = shapes.flops(55, 5, 0), shapes.flops(55, 5, 0, read=2)
    layer = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48)
    assert whole["linear"] == 3 * 55 * layer
    assert cut["linear"] == 2 * 55 * layer + 55 * 2 * (2 * 16 * 32) + 2 * 2 * (2 * 32 * 32 + 3 * 32 * 48)
    assert cut["attention"] == 2 * whole["attention"] // 3 + 2 * 2 * 32 * 2 * 11
    assert shapes.flops(55, 5, 0, read=55)["linear"] == whole["linear"]


def test_required_is_each_distinct_prefix_once():
    one_token, other = Example((1, 2, 3), ((4,), (5,)), 0), Example((1, 9, 3), ((4,), (5,)), 0)
    longer = Example((1, 2), ((4, 5), (6, 7, 8)), 1)
    assert Required.of((one_token, other), probes=2) == Required(tokens=2 * 5, read=4, rows=4, head_rows=8, words=2)
    assert Required.of((longer,), probes=1) == Required(tokens=2 + 1 + 2, read=1 + 1 + 2, rows=1, head_rows=5, words=5)
    assert Required.of(Minibatches(((one_token,), (other,))), probes=1).tokens == 6


def test_the_longer_side_binds():
    limits = {"matmul_flop_per_s": 100.0, "copy_bytes_per_s": 10.0}
    assert bound(200, 10, limits) == {
        "flops": 200, "bytes": 10, "compute_s": 2.0, "memory_s": 1.0, "floor_s": 2.0, "binds": "compute"
    }  # fmt: skip
    assert bound(100, 50, limits)["binds"] == "memory"
    assert bound(100, 50, limits)["floor_s"] == 5.0


WORK = {
    "forwards": 2, "rows": 8, "tokens_scored": 96, "tokens_real": 60, "head_rows": 8 * 97, "weight_bytes_written": 1000,
    "fold_bytes_written": 0, "adapter_bytes_written": 10, "host_syncs": 1,
}  # fmt: skip


@pytest.fixture
def context(tmp_path):
    batch = tuple(Example(tuple(range(start, start + 10)), ((4,), (5,)), 0) for start in (0, 10))
    spec = tiny_spec("lozo", "eager")
    source = saved(CONFIGS[1], tmp_path)
    return SimpleNamespace(work=lambda: WORK, spec=spec, source=source, batch=batch, probes=(0, 1), device=CPU, timed_step_s=0.01)


def test_counters_hold_the_executors_counts_and_the_least_there_is_to_do(context):
    found = Counters(context, None).collect()
    assert found["work"] == WORK
    assert found["required"]["tokens"] == 40
    weights = 3 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48)
    assert found["flops"]["linear"] == 2 * weights * 96
    unkept = 2 * 32 * 32 + 3 * 32 * 48  # q, o and the three of the last layer's MLP
    assert found["required"]["flops"]["linear"] == 2 * weights * 40 - 2 * unkept * (40 - 4)


def test_roofline_divides_by_ceilings_measured_once(context, tmp_path, monkeypatch):
    monkeypatch.setattr(ceilings, "SECONDS", 0.01)
    monkeypatch.setattr(ceilings, "CPU", {"copy_bytes": 1 << 22, "matmul": 128, "cache_bytes": 1 << 16})
    monkeypatch.setenv("ZO_BENCH_CACHE", str(tmp_path / "cache"))
    found = Roofline(context, None).collect()
    required, executed, limits = found["required"], found["executed"], found["ceilings"]
    weights = 3 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48)
    assert required["bytes"] == 4 * (weights + 2 * 32)
    assert executed["bytes"] == 4 * 2 * (weights + 97 * 32) + 2 * 1000 + 10
    assert required["compute_s"] == required["flops"] / limits["matmul_flop_per_s"]
    assert found["achieved"] == required["floor_s"] / 0.01
    assert found["attainable_s"] >= required["flops"] / limits["model_flop_per_s"]
    assert Roofline(context, None).collect() == found  # and not measured again
    assert len(list((tmp_path / "cache" / "ceilings-3").iterdir())) == 3


def test_a_damaged_cache_entry_is_measured_again(tmp_path):
    assert ceilings.cached(tmp_path, {"k": 1}, lambda: 5.0)["rate"] == 5.0
    assert ceilings.cached(tmp_path, {"k": 1}, lambda: 6.0)["rate"] == 5.0
    for damaged in ("{", "[]", "{}"):
        next(tmp_path.iterdir()).write_text(damaged)
        assert ceilings.cached(tmp_path, {"k": 1}, lambda: 6.0)["rate"] == 6.0


def test_a_ceiling_that_a_step_has_passed_is_measured_again(tmp_path):
    """It was measured while the machine was busy; the best that was ever seen is kept."""
    assert ceilings.cached(tmp_path, {"k": 1}, lambda: 5.0)["rate"] == 5.0
    assert ceilings.cached(tmp_path, {"k": 1}, lambda: 9.0, seen=4.0)["rate"] == 5.0
    assert ceilings.cached(tmp_path, {"k": 1}, lambda: 4.0, seen=6.0)["rate"] == 5.0
    assert ceilings.cached(tmp_path, {"k": 1}, lambda: 9.0, seen=6.0)["rate"] == 9.0
    assert ceilings.cached(tmp_path, {"k": 1}, lambda: 1.0)["rate"] == 9.0


def test_ceilings_lie_where_a_machine_can_be(monkeypatch):
    monkeypatch.setattr(ceilings, "SECONDS", 0.05)
    assert 1e8 < ceilings.copy_bytes_per_s(CPU) < 1e13
    slowest = ceilings.model_flop_per_s({(64, 64): 2}, 1, CPU, torch.float32)
    assert 1e6 < slowest < ceilings.matmul_flop_per_s(CPU, torch.float32) < 1e14
