"""One engine, every feature: the losses agree, and the resident loop really runs the modules vLLM built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from plain_loop import tiny_spec

from bench.data import ModelSource, TaskData
from bench.executors.vllm import forward
from bench.executors.vllm.executor import VllmExecutor
from bench.executors.vllm.graphs import Recording, Recordings
from bench.registry import make_workload
from workloads.reference import reference_losses
from workloads.tasks.ragged import full_rows, tree_rows

POINTS = [
    (loop, batching, kv, lora)
    for loop in ("resident", "requests")
    for batching in ("sequential", "paired")
    for kv in ("recompute", "shared")
    for lora in ("dense", "unfused", "fused")
    if not (lora == "dense" and batching == "paired")
]
SPEC = tiny_spec("lozo", "vllm", kv="recompute", eps=1e-2)


@pytest.fixture(scope="module")
def source(tiny_source: Callable[..., ModelSource], tiny_task: TaskData) -> ModelSource:
    """With as many positions as the longest row has tokens."""
    longest = max(len(e.prompt) + len(option) for e in tiny_task.train for option in e.options)
    return tiny_source("opt", max_position_embeddings=longest)


@pytest.fixture(scope="module")
def executor(source: ModelSource, tiny_task: TaskData) -> Iterator[VllmExecutor]:
    """Loaded for the largest point, with some updates pending in the accumulated state."""
    loaded = VllmExecutor()
    loaded.load(SPEC, source, tiny_task)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def truth(source: ModelSource, tiny_task: TaskData) -> torch.Tensor:
    return reference_losses(source, SPEC, tiny_task.train, make_workload(SPEC).plan(0))


def use(executor: VllmExecutor, loop: str, batching: str, kv: str, lora: str) -> None:
    executor.spec = replace(executor.spec, loop=loop)
    executor.switch(replace(executor.spec, batching=batching, kv=kv, lora=lora))


@pytest.mark.parametrize("point", POINTS, ids="-".join)
def test_every_point_computes_the_same_losses(
    executor: VllmExecutor, truth: torch.Tensor, tiny_task: TaskData, point: tuple[str, str, str, str]
) -> None:
    use(executor, *point)
    losses = executor.score(tiny_task.train, make_workload(SPEC).plan(0))
    assert (truth[0] - truth[1]).abs() > 1e-3  # the two states differ, so agreement means something
    assert torch.allclose(losses, truth, rtol=0, atol=2e-5)


@pytest.mark.parametrize("lora", ["fused", "dense"])
def test_evaluation_agrees_between_the_loops(executor: VllmExecutor, tiny_task: TaskData, lora: str) -> None:
    found = []
    for loop in ("resident", "requests"):
        use(executor, loop, "sequential", "shared", lora)
        found.append(executor.evaluate(tiny_task.eval))
    assert torch.allclose(found[0], found[1], rtol=0, atol=2e-5)


def played_back(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], object], torch.Tensor]:
    """A recording as the CPU can have one: the pass again, which finds its batch in the buffers alone, into the same memory."""
    out = run().clone()
    return lambda: out.copy_(run()), out


@pytest.mark.parametrize("lora", ["fused", "unfused"])
@pytest.mark.parametrize("batching", ["sequential", "paired"])
@pytest.mark.parametrize("kv", ["recompute", "shared"])
def test_a_recorded_pass_scores_every_batch_that_fits(
    executor: VllmExecutor,
    source: ModelSource,
    tiny_task: TaskData,
    monkeypatch: pytest.MonkeyPatch,
    batching: str,
    kv: str,
    lora: str,
) -> None:
    """What a CUDA graph replays, called here: of as many rows or fewer, where the states of both probes are told apart."""
    zo = executor._llm.llm_engine.model_executor.driver_worker.worker.zo
    recordings = Recordings(played_back)
    monkeypatch.setattr(zo.forward, "_recordings", recordings)
    rows = (tree_rows if kv == "shared" else full_rows)(tiny_task.train, 1 if batching == "sequential" else 2)
    monkeypatch.setattr(forward, "recorded_sizes", lambda tokens: [len(rows.tokens) // 3, len(rows.tokens) + 18])
    use(executor, "resident", batching, kv, lora)
    found: list[Recording] = []
    find = recordings.find
    monkeypatch.setattr(recordings, "find", lambda *given: found.append(find(*given)) or found[-1])
    for batch in (tiny_task.train, tiny_task.train[3:], tiny_task.train[2:5]):
        losses = executor.score(batch, make_workload(SPEC).plan(0))
        truth = reference_losses(source, SPEC, batch, make_workload(SPEC).plan(0))
        assert torch.allclose(losses, truth, rtol=0, atol=2e-5)
    passes = 1 if batching == "paired" else 2
    assert len(found) == 3 * passes and all(found)
    assert {one.staged.share for one in found} == ({0} if lora == "fused" else {one.padded * passes // 2 for one in found})
    with executor.unrecorded():
        assert torch.equal(executor.score(batch, make_workload(SPEC).plan(0)), losses)


def test_a_resident_step_runs_the_modules_that_vllm_built(executor: VllmExecutor, tiny_task: TaskData) -> None:
    use(executor, "resident", "paired", "shared", "fused")
    runner = executor._llm.llm_engine.model_executor.driver_worker.worker.model_runner
    calls: Counter[str] = Counter()

    def count(kind: str) -> Callable[..., None]:
        return lambda *_: calls.update([kind])

    kinds = {"BaseLinearLayerWithLoRA": "lora", "Attention": "attention", "OPTForCausalLM": "model"}
    hooks = [
        module.register_forward_hook(count(kind))
        for module in runner.model.modules()
        for base, kind in kinds.items()
        if base in {parent.__name__ for parent in type(module).__mro__}
    ]
    executor.score(tiny_task.train, make_workload(SPEC).plan(0))
    for hook in hooks:
        hook.remove()
    # one forward; per layer one attention, four adapted linears; q, k and v of the last one again, of the positions that are read
    assert calls == {"model": 1, "attention": 2, "lora": 8 + 1}


def test_detaching_the_slots_changes_the_losses(executor: VllmExecutor, truth: torch.Tensor, tiny_task: TaskData) -> None:
    use(executor, "resident", "paired", "shared", "fused")
    worker = executor._llm.llm_engine.model_executor.driver_worker.worker
    manager = worker.model_runner.lora_manager._adapter_manager
    executor._rpc("zo_prepare", make_workload(SPEC).plan(0))
    for module in manager.modules.values():
        for b in module.lora_b_stacked:
            b.zero_()
    losses = worker.zo.score_prepared(tiny_task.train, 2)
    assert losses[0] == pytest.approx(losses[1].item(), abs=1e-6)
    assert (losses - truth).abs().max() > 1e-4


def test_facts_and_memory(executor: VllmExecutor) -> None:
    use(executor, "resident", "paired", "shared", "fused")
    assert executor.details()["model_runner"].endswith("CPUModelRunner")
    parts = executor.memory_parts()
    assert parts["adapter_slots"] == 2 * 8 * 4 * 2 * (
        4 * (64 + 64) + 2 * (64 + 128)
    )  # slots x rank x bytes x layers x (in + out)
    one_layer = 2 * 2 * 32 * 4  # (key, value) x heads x head x bytes of a token: one pool serves both layers
    assert parts["kv_pool"] % one_layer == 0 and parts["weights"] > 0
    runner = executor._llm.llm_engine.model_executor.driver_worker.worker.model_runner
    assert len({cache.data_ptr() for cache in runner.kv_caches}) == 1 < len(runner.kv_caches)
    assert parts["kv_pool"] == runner.kv_caches[0].nbytes


def test_threads_can_still_be_set(executor: VllmExecutor) -> None:
    """vLLM's CPU worker replaces the function for the whole process, other executors and opt-tiny's build included."""
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
