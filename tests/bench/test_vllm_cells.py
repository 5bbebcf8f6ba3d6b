"""Every workload on vLLM, each architecture and precision, against the float64 loop: ten steps, losses and weight change.

An engine takes 15 s to start, so one of each architecture and precision serves all workloads: its worker is set up anew for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from plain_methods import KINDS
from served import Served
from stepping import steps

from bench.data import Minibatches, TaskData
from bench.executors.vllm.executor import VllmExecutor
from bench.executors.vllm.last_layer import last_of
from bench.harness import gate
from bench.registry import make_workload
from workloads.parameters.rounding import add_
from workloads.reference import reference_losses
from workloads.steps import rounds, scored

STEPS, QUERIES = 10, 3
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def served(tiny_spec: Make, tiny_source: Make, tiny_task: TaskData) -> Iterator[Callable[[str, str], Served]]:
    """served(architecture, dtype): loaded once, large enough for every cell; the one before it is closed."""
    current: dict[tuple[str, str], Served] = {}

    def get(architecture: str, dtype: str) -> Served:
        key = (architecture, dtype)
        if key not in current:
            close()
            spec = tiny_spec("factorized", "vllm", queries=QUERIES, dtype=dtype)
            whole = tiny_spec("mezo", "vllm", scope="full", dtype=dtype)
            current[key] = Served(tiny_source(architecture), spec, whole, tiny_task)
        return current[key]

    def close() -> None:
        for one in current.values():
            one.executor.close()
        current.clear()

    yield get
    close()


@pytest.mark.parametrize("workload", ["lozo", "mezo", "factorized"])
def test_three_queries_are_the_mean_of_three_single_ones(
    workload: str, served: Make, tiny_spec: Make, tiny_task: TaskData
) -> None:
    engine, batch = served("opt", "float32"), tiny_task.train
    spec = tiny_spec(workload, "vllm", queries=QUERIES)
    method = make_workload(spec)
    together = engine.by(spec)
    before = together.parameters()
    losses = together.step(method, 0, batch).clone()
    after, changes = together.parameters(), []
    for query in range(QUERIES):
        alone = engine.by(spec)
        probes = method.plan(0)[2 * query : 2 * query + 2]
        pair = alone.score(batch, probes)
        assert torch.allclose(pair, losses[2 * query : 2 * query + 2], rtol=0, atol=2e-6)
        coefficient = -spec.learning_rate * (pair[0] - pair[1]) / (2 * spec.eps)
        alone.apply(type(method.update(0, losses))(((probes[0].direction, coefficient),)))
        found = alone.parameters()
        changes.append({name: (found[name] - before[name]).double() for name in before})
    for name in before:
        mean = sum(change[name] for change in changes) / QUERIES
        assert torch.allclose((after[name] - before[name]).double(), mean, rtol=0, atol=1e-6), name


ADAPTER = {"scope": "adapter", "learning_rate": 1e-2, "eps": 1e-2}
CELLS = [
    ("opt", "lozo", {"queries": QUERIES}),
    ("opt", "mezo", {"scope": "lora", "queries": 2}),
    ("opt", "mezo", {"scope": "full", "queries": 2}),
    ("opt", "factorized", {"queries": QUERIES}),
    ("llama", "lozo", {}),
    ("llama", "factorized", {}),
    ("opt", "one-sided", {"queries": 4}),
    ("opt", "fzoo", {"queries": 5}),
    ("opt", "fzoo", {"queries": 3, "loop": "requests"}),
    ("opt", "lozo-m", {"queries": 2, "loop": "requests"}),
    ("opt", "eggroll", {"queries": 3, "rank": 1}),
    ("opt", "zo-sign", {"queries": 2}),
    ("opt", "three-points", {"queries": 2}),
    ("opt", "conservative", {}),
    ("opt", "conservative", {"loop": "requests", "weight_decay": 5.0}),
    ("opt", "lozo-m", {"weight_decay": 50.0, "lr_schedule": "cosine", "lr_warmup": 2}),
    ("opt", "mezo-m", {"momentum_state": "redrawn"}),
    ("opt", "zo-adam", {"scope": "full", "weight_decay": 50.0}),
    ("opt", "mezo", ADAPTER),
    ("opt", "mezo", ADAPTER | {"queries": 3, "loop": "requests", "adapter_rank": 4, "adapter_alpha": 10.0}),
    ("opt", "zo-adam", ADAPTER | {"adapter_targets": "all", "weight_decay": 5.0, "lora": "unfused"}),
    ("qwen3", "lozo", {}),
    ("qwen3", "factorized", {}),
    ("qwen3", "mezo", ADAPTER | {"adapter_targets": "o_proj,k_proj"}),
]


@pytest.mark.parametrize(("architecture", "workload", "changes"), CELLS, ids=lambda value: str(value).replace("'", ""))
def test_a_cell_follows_the_float64_loop(
    architecture: str, workload: str, changes: dict, served: Make, tiny_spec: Make, plain_loop: Make, tiny_task: TaskData
) -> None:
    engine, spec = served(architecture, "float32"), tiny_spec(workload, "vllm", **changes)
    truth, method, executor = plain_loop(engine.source, spec), make_workload(spec), engine.by(spec)
    forwards, weights = count_forwards(executor), weights_of(executor)
    for number in range(STEPS):
        batch, before = tiny_task.train[: 8 - number % 3], len(forwards)
        expected = truth.step(number, batch)
        if number % 2:  # both ways of driving the executor, in turn
            losses = executor.step(method, number, batch)
        else:
            losses = scored(executor, method, number, batch)
            executor.apply(method.update(number, losses))
        assert torch.allclose(losses.double(), expected, rtol=0, atol=2e-5), number
        every = rounds(method, number)
        passes = len(losses) if spec.lora == "dense" else len(every)  # adapters: all probes of a round in one batch
        assert len(forwards) - before == passes == executor.work(batch, *every)["forwards"]
    assert truth.change_error(executor.parameters()) <= 1e-3
    stay = [torch.equal(before, after) for before, after in zip(weights, weights_of(executor), strict=True)]
    assert all(stay) == (spec.scope == "adapter")


@pytest.mark.parametrize("kv", ["shared", "recompute"])
def test_the_last_layer_runs_for_the_positions_that_are_read_and_the_losses_stay(
    kv: str, served: Make, tiny_spec: Make, tiny_task: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, counts = tiny_spec("lozo", "vllm", kv=kv), list[int]()
    executor, probes, batch = served("opt", "float32").by(spec), make_workload(spec).plan(0), tiny_task.train
    ends = [module for module in last_of(runner_of(executor).model)[0].modules() if hasattr(module, "cpu_linear")][-1]
    product = ends.cpu_linear
    monkeypatch.setattr(ends, "cpu_linear", lambda x, *more: counts.append(len(x)) or product(x, *more))
    found, work = executor.score(batch, probes), executor.work(batch, probes)
    monkeypatch.setattr(executor._llm.llm_engine.model_executor.driver_worker.worker.zo.forward, "_last", None)
    whole, more = executor.score(batch, probes), executor.work(batch, probes)
    assert counts == [work["tokens_read"], more["tokens_scored"]]
    assert work["tokens_read"] == 2 * len(batch) * (1 if kv == "shared" else 2)
    assert work == more | {"tokens_read": work["tokens_read"]}
    assert torch.allclose(found, whole, rtol=0, atol=1e-6)


def weights_of(executor: VllmExecutor) -> list[torch.Tensor]:
    """Copies of all that vLLM loaded."""
    return [p.detach().clone() for p in runner_of(executor).model.parameters()]


def runner_of(executor: VllmExecutor) -> Any:
    return executor._llm.llm_engine.model_executor.driver_worker.worker.model_runner


@pytest.mark.parametrize("workload", KINDS)
def test_a_step_of_several_minibatches_is_their_mean_however_it_is_divided(
    workload: str, served: Make, tiny_spec: Make, plain_loop: Make, tiny_task: TaskData
) -> None:
    queries = 1 if workload == "conservative" else 2
    engine, spec = served("opt", "float32"), tiny_spec(workload, "vllm", queries=queries, max_tokens=100)
    truth, method, executor, rows = plain_loop(engine.source, spec), make_workload(spec), engine.by(spec), tiny_task.train
    forwards = count_forwards(executor)
    for number in range(6):
        step, before = Minibatches((rows[:5], rows[number % 4 + 1 :][:3], rows[6:])), len(forwards)
        losses = executor.step(method, number, step)
        assert torch.allclose(losses.double(), truth.step(number, step), rtol=0, atol=2e-5), number
        assert len(forwards) - before == executor.work(step, *rounds(method, number))["forwards"] >= 3
    assert truth.change_error(executor.parameters()) <= 1e-3


def count_forwards(executor: VllmExecutor) -> list[int]:
    """Grows by one with every forward pass of the model."""
    found: list[int] = []
    runner_of(executor).model.register_forward_hook(lambda *_: found.append(1))
    return found


@pytest.mark.parametrize("scope", ["lora", "full"])
def test_float16_mezo_restores_the_weights_bit_for_bit(scope: str, served: Make, tiny_spec: Make, tiny_task: TaskData) -> None:
    """The change is the update alone: seeded stochastic rounding of a step along the very noise that was measured."""
    spec = tiny_spec("mezo", "vllm", dtype="float16", scope=scope)
    method, executor = make_workload(spec), served("opt", "float16").by(spec)
    before = executor.parameters()
    losses = executor.score(tiny_task.train, method.plan(0))
    after = executor.parameters()
    assert losses[0] != losses[1]
    assert all(torch.equal(before[name], after[name]) for name in before)
    update = method.update(0, losses)
    executor.apply(update)
    moved, ((direction, coefficient),) = executor.parameters(), update.terms
    for name, weight in before.items():
        by_hand = weight.half()
        noise = executor_noise(direction, name, {n: tuple(w.shape) for n, w in before.items()})
        add_(by_hand, noise * coefficient, direction.seed, direction.step, direction.query, name)
        assert torch.equal(by_hand.float(), moved[name]), name
    assert any(not torch.equal(before[name], moved[name]) for name in before)


def executor_noise(direction: Any, name: str, shapes: dict) -> torch.Tensor:
    from workloads.directions import draw

    return draw(direction, shapes, "cpu", torch.float16).noise(name).float()


@pytest.mark.parametrize(
    ("workload", "changes"), [("lozo", {}), ("mezo", {}), ("factorized", {}), ("mezo", {"scope": "adapter", "eps": 1e-2})]
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_pass_the_gate_and_their_folds_are_watched(
    dtype: str, workload: str, changes: dict, served: Make, tiny_spec: Make, tiny_task: TaskData
) -> None:
    """Random weights, too, are the other executors': vLLM loads them under another default type."""
    engine, batch = served("opt", dtype), tiny_task.train
    spec = tiny_spec(workload, "vllm", dtype=dtype, interval=2, learning_rate=1e-6, **changes)
    method = make_workload(spec)

    def reference(rows: Any, probes: Any, type_: str) -> torch.Tensor:
        return reference_losses(engine.source, tiny_spec(workload, "vllm", dtype=type_, **changes), rows, probes)

    executor = engine.by(spec)
    check, _ = gate.check(executor, gate.expected(reference, batch, method.plan(0), dtype, "cpu"))
    assert check.passed, check.detail
    losses = steps(executor, method, 0, [batch] * 5)
    assert losses.isfinite().all()
    if workload != "mezo":
        facts = executor.details()
        assert facts["folds"] == (2 if workload == "lozo" else 4)
        assert facts["fold_cosine"] > 0 and 0 < facts["fold_absorbed_fraction"] <= 1
