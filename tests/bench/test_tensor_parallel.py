"""Two ranks over gloo, on the CPU, against one: the same directions, folds and files, whatever the number of ranks.

The losses that move the weights are forced: free trajectories of two summation orders drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.data import TaskData
from bench.executors.vllm.executor import VllmExecutor
from bench.registry import make_executor, make_workload

STEPS = 7
Make = Callable[..., Any]


def forced(step: int, probes: int) -> torch.Tensor:
    return torch.linspace(0.6, 0.9, probes) + 0.01 * torch.randn(probes, generator=torch.Generator().manual_seed(step))


class Spread:
    """An engine of two ranks for several workloads; `expected` computes the same with plain PyTorch in one process."""

    def __init__(self, spec: Any, whole: Any, source: Any, task: TaskData) -> None:
        from served import Served

        self.source, self.task = source, task
        self.served = Served(source, spec, whole, task)

    def by(self, spec: Any) -> VllmExecutor:
        return self.served.by(spec)

    def expected(self, spec: Any) -> Any:
        plain = make_executor("eager")
        plain.load(replace(spec, executor="eager", loop="requests", tensor_parallel=1), self.source, self.task)
        return plain


@pytest.fixture(scope="module", params=[("opt", "float32"), ("llama", "float16")], ids=["opt-float32", "llama-float16"])
def spread(request: Any, tiny_spec: Make, tiny_source: Make, tiny_task: TaskData) -> Iterator[Spread]:
    """OPT, and a Llama whose only key and value head is on both ranks."""
    family, dtype = request.param
    spec = tiny_spec("factorized", "vllm", dtype=dtype, tensor_parallel=2)
    whole = tiny_spec("mezo", "vllm", scope="full", dtype=dtype, tensor_parallel=2)
    sizes = {"num_key_value_heads": 1} if family == "llama" else {}
    found = Spread(spec, whole, tiny_source(family, **sizes), tiny_task)
    yield found
    found.served.executor.close()


CELLS = [
    ("lozo", {"queries": 1}),
    ("lozo", {"loop": "requests", "kv": "recompute"}),
    ("factorized", {}),
    ("mezo", {"scope": "lora"}),
    ("mezo", {"scope": "full", "weight_decay": 10.0}),
]


@pytest.mark.parametrize(("workload", "changes"), CELLS, ids=lambda value: str(value).replace("'", ""))
def test_two_ranks_do_what_one_does(workload: str, changes: dict, spread: Spread, tiny_spec: Make) -> None:
    """Losses to 2e-5 in float32, weights and checksums bit for bit after folds, and a snapshot that one process restores."""
    dtype = spread.served.executor.spec.dtype
    spec = tiny_spec(workload, "vllm", dtype=dtype, tensor_parallel=2, interval=3, **changes)
    two, one, method = spread.by(spec), spread.expected(spec), make_workload(spec)
    for step in range(STEPS):
        probes, batch = method.plan(step), spread.task.train
        ours, theirs = two.score(batch, probes), one.score(batch, probes)
        assert torch.allclose(ours.cpu(), theirs, rtol=0, atol=2e-5 if dtype == "float32" else 2e-2), step
        for executor in (two, one):
            executor.apply(method.update(step, forced(step, len(probes))))
        assert two.checksum() == one.checksum(), step
    ours, theirs = two.parameters(), one.parameters()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    saved, state = two.snapshot(), two.checksum()
    fresh = spread.expected(spec)
    fresh.restore(saved)
    assert fresh.checksum() == state
    two.replay(method, STEPS, forced(STEPS, len(probes)))
    two.restore(one.snapshot())  # and back: two ranks go on from what one process wrote
    assert two.checksum() == state
    a, b = two.evaluate(spread.task.eval), one.evaluate(spread.task.eval)
    assert torch.allclose(a, b, rtol=0, atol=2e-5 if dtype == "float32" else 5e-2)


def test_every_rank_is_traced_and_communication_shows(spread: Spread, tiny_spec: Make) -> None:
    """An all-reduce after attention and one after the feed-forward of each of two layers, and one for the embeddings."""
    from bench.recorders import observe
    from bench.recorders.context import ProfileContext

    dtype = spread.served.executor.spec.dtype
    spec = tiny_spec("lozo", "vllm", dtype=dtype, tensor_parallel=2)
    executor, method, batch = spread.by(spec), make_workload(spec), spread.task.train
    steps = ProfileContext(executor, spec, spread.source, spread.task, batch, (method.plan(0),), 1.0, torch.device("cpu"), 3)
    found, warnings = observe(steps, [], lambda step: executor.step(method, step, batch))
    assert set(found) == {"counters", "time_breakdown", "launches"} and not warnings
    launches, times = found["launches"], found["time_breakdown"]
    assert launches["operators"] == sum(rank["operators"] for rank in launches["ranks"]) and launches["steps"] == 3
    assert all(rank["by_bucket"]["communication"] >= 5 for rank in launches["ranks"])
    for rank in times["ranks"]:
        assert rank["buckets"]["communication"] > 0
        assert sum(rank["buckets"].values()) + rank["idle_s"] == pytest.approx(rank["span_s"], rel=1e-6)
    left_out = observe(steps, ["energy"], lambda step: executor.step(method, 4 + step, batch))
    assert left_out[0] == {} and "energy left out" in left_out[1][0]


def test_memory_is_told_by_rank(spread: Spread, tiny_spec: Make) -> None:
    executor = spread.by(tiny_spec("lozo", "vllm", dtype=spread.served.executor.spec.dtype, tensor_parallel=2))
    by_rank, total = executor.details()["memory_by_rank"], executor.memory_parts()
    assert len(by_rank) == 2 and all(sum(part[name] for part in by_rank) == total[name] for name in total)
    assert by_rank[0]["adapter_slots"] == by_rank[1]["adapter_slots"] > 0
