"""vLLM's layers as a GPU has them, on the CPU and with the kernel in Triton's interpreter: the losses are the reference's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bench.data import ModelSource
from bench.executors.vllm.triton_attention import WIDEST
from bench.executors.vllm.whole_rows import is_plain

PROGRAM = """
import random, sys
from collections import Counter
from dataclasses import replace

import torch
from plain_loop import tiny_spec

from bench.data import Example, ModelSource, TaskData
from bench.executors.vllm import forward, whole_rows
from bench.executors.vllm.executor import VllmExecutor
from bench.executors.vllm.graphs import Recordings
from bench.registry import make_workload
from workloads.reference import reference_losses

draw = random.Random(0)
examples = tuple(
    Example((0, *(draw.randrange(10, 300) for _ in range(draw.randrange(3, 20)))), ((7,), (9,)), draw.randrange(2))
    for _ in range(5)
)
task = TaskData(examples, (), examples, "test", 1, 31, True, {})
source = ModelSource("tiny-opt", sys.argv[2], "random")
spec = tiny_spec("lozo", "vllm", kv="recompute", eps=1e-2, batch_size=5)
plan = make_workload(spec).plan(0)
executor = VllmExecutor()
executor.load(spec, source, task)
passes = executor._llm.llm_engine.model_executor.driver_worker.worker.zo.forward
layers = [layer for layer in passes.runner.compilation_config.static_forward_context.values() if hasattr(layer, "impl")]
calls = Counter()
for layer in layers:
    layer.impl = layer.impl._own
kernel, kind = whole_rows.packed_attention, type(layers[0].impl)
write = kind.do_kv_cache_update
whole_rows.packed_attention = lambda *given: (calls.update(["kernel"]), kernel(*given))
kind.do_kv_cache_update = lambda *given: (calls.update(["written"]), write(*given))[1]
passes.take_whole_rows(whole_rows.TritonRows(4096, passes.device))
forward.recorded_sizes = lambda tokens: [48, 112, 240]

def played_back(run):
    out = run().clone()
    return lambda: out.copy_(run()), out

for recorder in (None, played_back):
    for kv in ("recompute", "shared"):
        passes._recordings = Recordings(recorder)
        executor.switch(replace(spec, kv=kv))
        for batch in (examples, examples[1:3]):
            calls.clear()
            truth = reference_losses(source, spec, batch, plan)
            assert (truth[0] - truth[1]).abs() > 1e-3
            found = executor.score(batch, plan)
            assert torch.allclose(found, truth, rtol=0, atol=2e-5), (kv, found, truth)
            assert calls == {"kernel": 2}, calls  # one pass over two layers, and no key is kept
        if recorder:
            assert any(passes._recordings._held.values())
executor.switch(replace(spec, variant="pooled attention"))
calls.clear()
assert torch.allclose(executor.score(batch, plan), truth, rtol=0, atol=2e-5)
assert calls["kernel"] == 0 and calls["written"] == 2, calls
executor.close()
"""


def test_whole_rows_are_attended_to_without_a_pool(
    run_kernels: Callable[..., None], tiny_source: Callable[..., ModelSource]
) -> None:
    run_kernels(PROGRAM, tiny_source("opt").path, device="cpu")


PLAIN = {"attn_type": "decoder", "head_size": 128, "sliding_window": (-1, -1), "logits_soft_cap": 0, "sinks": None}


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        ({}, True),
        ({"sliding_window": None}, True),
        ({"sliding_window": (127, 0)}, False),
        ({"sliding_window": 128}, False),
        ({"logits_soft_cap": 50.0}, False),
        ({"sinks": object()}, False),
        ({"alibi_slopes": [0.5]}, False),
        ({"attn_type": "encoder_only"}, False),
        ({"kv_sharing_target_layer_name": "model.layers.3"}, False),
        ({"head_size": 512}, False),
    ],
)
def test_attention_with_anything_to_it_stays_vllms(more: dict[str, Any], taken: bool) -> None:
    assert is_plain(SimpleNamespace(**PLAIN | more), WIDEST) is taken
