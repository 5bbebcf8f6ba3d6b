"""Each distinct prefix once, through vLLM: answers of several tokens, common demonstrations, both objectives, both loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from plain_loop import tiny_spec
from prefixes import BLOCK, long_task, plain_loss, plain_scores, target_task

from baselines.eager.executor import EagerExecutor
from bench.data import ModelSource, TaskData
from bench.executors.vllm.executor import VllmExecutor
from bench.registry import make_workload

SPEC = tiny_spec("lozo", "vllm", kv="recompute", eps=1e-2, batch_size=6)
PROBES = make_workload(SPEC).plan(0)
TASKS = {"classification": long_task(), "nll": target_task()}


@pytest.fixture(scope="module")
def source(tiny_source: Callable[..., ModelSource]) -> ModelSource:
    return tiny_source("opt", max_position_embeddings=128)


@pytest.fixture(scope="module")
def executor(source: ModelSource) -> Iterator[VllmExecutor]:
    loaded = VllmExecutor()
    loaded.load(SPEC, source, TASKS["classification"])
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def truth(source: ModelSource) -> dict[str, torch.Tensor]:
    found = {}
    for objective, task in TASKS.items():
        losses = [plain_loss(plain_scores(source, task.train, probe), task.train, objective) for probe in PROBES]
        found[objective] = torch.tensor(losses)
    return found


def use(executor: VllmExecutor, task: TaskData, monkeypatch: pytest.MonkeyPatch, **features: Any) -> None:
    monkeypatch.setattr(executor, "_task", task)
    worker = executor._llm.llm_engine.model_executor.driver_worker.worker
    monkeypatch.setattr(worker.zo, "objective", task.objective)
    executor.switch(replace(SPEC, **features))


@pytest.mark.parametrize("objective", TASKS)
@pytest.mark.parametrize("loop", ["resident", "requests"])
@pytest.mark.parametrize("kv", ["recompute", "shared"])
@pytest.mark.parametrize("lora", ["dense", "unfused", "fused"])
@pytest.mark.parametrize("batching", ["sequential", "paired"])
def test_every_point_computes_the_losses_of_plain_float64_loops(
    executor: VllmExecutor,
    truth: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    loop: str,
    kv: str,
    lora: str,
    batching: str,
) -> None:
    if lora == "dense":
        batching = "sequential"  # it holds one state at a time
    use(executor, TASKS[objective], monkeypatch, loop=loop, kv=kv, lora=lora, batching=batching)
    losses = executor.score(TASKS[objective].train, PROBES)
    assert torch.allclose(losses, truth[objective], rtol=0, atol=2e-5)
    assert (losses[0] - losses[1]).abs() > 1e-4


def tokens_run(executor: VllmExecutor, work: Callable[[], Any]) -> Counter[str]:
    """Tokens and forwards of the model while some work is done."""
    model = executor._llm.llm_engine.model_executor.driver_worker.worker.model_runner.model
    seen: Counter[str] = Counter()
    hook = model.register_forward_hook(
        lambda _m, _a, given, _o: seen.update(tokens=given["input_ids"].numel(), forwards=1), with_kwargs=True
    )
    work()
    hook.remove()
    return seen


@pytest.mark.parametrize("objective", TASKS)
@pytest.mark.parametrize("loop", ["resident", "requests"])
@pytest.mark.parametrize("kv", ["recompute", "shared"])
@pytest.mark.parametrize("lora", ["dense", "fused"])
def test_in_forwards_of_few_tokens_the_losses_are_the_same_and_the_counts_right(
    executor: VllmExecutor,
    truth: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    loop: str,
    kv: str,
    lora: str,
) -> None:
    batching, task = ("sequential" if lora == "dense" else "paired"), TASKS[objective]
    use(executor, task, monkeypatch, loop=loop, kv=kv, lora=lora, batching=batching, max_tokens=60)
    found: list[torch.Tensor] = []
    seen = tokens_run(executor, lambda: found.append(executor.score(task.train, PROBES)))
    assert torch.allclose(found[0], truth[objective], rtol=0, atol=2e-5)
    work = executor.work(task.train, PROBES)
    assert (seen["tokens"], seen["forwards"]) == (work["tokens_scored"], work["forwards"])
    undivided = {"recompute": 1, "shared": 1 if loop == "resident" else 3}[kv] * (2 if lora == "dense" else 1)
    assert work["forwards"] > undivided
    rows = executor.evaluate(task.eval)
    monkeypatch.setattr(executor, "spec", replace(executor.spec, max_tokens=10**6))
    executor._rpc("zo_use", executor.spec)
    assert torch.allclose(executor.evaluate(task.eval), rows, rtol=0, atol=2e-5)


@pytest.mark.parametrize("objective", TASKS)
@pytest.mark.parametrize("loop", ["resident", "requests"])
@pytest.mark.parametrize("kv", ["recompute", "shared"])
def test_the_tokens_counted_are_the_tokens_run(
    executor: VllmExecutor, monkeypatch: pytest.MonkeyPatch, objective: str, loop: str, kv: str
) -> None:
    task = TASKS[objective]
    use(executor, task, monkeypatch, loop=loop, kv=kv)
    seen = tokens_run(executor, lambda: executor.score(task.train, PROBES))
    work = executor.work(task.train, PROBES)
    assert seen["tokens"] == work["tokens_scored"]
    assert seen["forwards"] == work["forwards"]


def test_shared_runs_the_distinct_prefixes_and_nothing_else(executor: VllmExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASKS["classification"]
    use(executor, task, monkeypatch, loop="resident", kv="shared")
    nodes = {row[:end] for e in task.train for row, _ in e.rows() for end in range(1, len(row))}
    assert executor.work(task.train, PROBES)["tokens_scored"] / 2 == len(nodes)
    use(executor, task, monkeypatch, loop="resident", kv="recompute")
    assert executor.work(task.train, PROBES)["tokens_scored"] / 2 == sum(len(row) for e in task.train for row, _ in e.rows())


def test_through_the_pool_rows_share_whole_blocks(
    executor: VllmExecutor, truth: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, forward = TASKS["classification"], executor._llm.llm_engine.model_executor.driver_worker.worker.zo.forward
    use(executor, task, monkeypatch, loop="resident", kv="shared")
    monkeypatch.setattr(forward, "pooled", True)
    nodes = {row[:end] for e in task.train for row, _ in e.rows() for end in range(1, len(row))}
    rows = {row[:-1] for e in task.train for row, _ in e.rows()}
    leaves = [row for row in rows if not any(other != row and other[: len(row)] == row for other in rows)]
    tokens = executor.work(task.train, PROBES)["tokens_scored"] / 2
    assert len(nodes) < tokens <= len(nodes) + (len(leaves) - 1) * (BLOCK - 1)
    assert torch.allclose(executor.score(task.train, PROBES), truth["classification"], rtol=0, atol=2e-5)


def test_the_cache_is_hit_within_a_state_and_never_across(executor: VllmExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    use(executor, TASKS["classification"], monkeypatch, loop="requests", kv="shared")
    hits: list[tuple[str, int]] = []
    generate = executor._llm.generate

    def noting(prompts: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = generate(prompts, *args, **kwargs)
        hits.extend((p["cache_salt"], o.num_cached_tokens) for p, o in zip(prompts, outputs, strict=True))
        return outputs

    monkeypatch.setattr(executor._llm, "generate", noting)
    for _ in range(2):
        executor.score(TASKS["classification"].train, PROBES)
    salts = list(dict.fromkeys(salt for salt, _ in hits))
    assert len(salts) == 4  # two states, scored twice: the second time nothing of the first is found
    for salt in salts:
        cached = [tokens for s, tokens in hits if s == salt]
        assert cached[0] == 0 and max(cached) >= 2 * BLOCK


def test_greedy_answers_are_those_of_hugging_face(
    executor: VllmExecutor, source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASKS["classification"]
    plain = EagerExecutor()
    plain.load(replace(SPEC, executor="eager", loop="requests"), source, task)
    use(executor, task, monkeypatch, loop="resident", kv="shared")
    update = make_workload(SPEC).update(0, torch.tensor([3.0, 1.0]))
    for each in (executor, plain):
        each.apply(update)
    answers = executor.generate(task.eval)
    assert answers == plain.generate(task.eval)
    assert all(len(answer) <= task.answer_tokens and 2 not in answer for answer in answers)
    assert len(set(answers)) > 1
