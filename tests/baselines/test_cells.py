"""Every workload on official (shared directions) and eager, against the float64 loop: ten steps, losses and weight change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_methods import KINDS
from stepping import steps

from bench.data import Minibatches
from bench.harness import gate
from bench.registry import make_workload
from workloads.parameters.accumulated import AccumulatedState
from workloads.reference import reference_losses
from workloads.steps import rounds, scored

LOSS_TOLERANCE, CHANGE_TOLERANCE = 2e-5, 1e-3
Make = Callable[..., Any]

CELLS = [(w, e, s, "opt") for w in ("lozo", "mezo", "factorized") for e in ("official", "eager") for s in ("lora", "full")]
CELLS += [(w, "eager", s, a) for w, s in (("lozo", "full"), ("factorized", "lora")) for a in ("llama", "qwen3")]
CELLS += [
    (w, e, s, "gpt2") for w, s in (("lozo", "lora"), ("mezo", "full"), ("factorized", "lora")) for e in ("official", "eager")
]


def follow(executor: Any, truth: Any, examples: tuple, steps: int = 10) -> tuple[float, float]:
    """Largest difference of a loss, and the relative error of the weight change."""
    method, worst = make_workload(truth.spec), 0.0
    for number in range(steps):
        batch = examples[: 8 - number % 3]
        expected = truth.step(number, batch)
        if number % 2:  # both ways of driving an executor, in turn
            losses = executor.step(method, number, batch)
        else:
            losses = scored(executor, method, number, batch)
            executor.apply(method.update(number, losses))
        worst = max(worst, float((losses.double() - expected).abs().max()))
    return worst, truth.change_error(executor.parameters())


ADAPTER: dict[str, Any] = {"scope": "adapter", "learning_rate": 1e-2, "eps": 1e-2}
METHODS: list[tuple[str, str, dict[str, Any]]] = [
    *((w, e, {"queries": 3}) for w in ("one-sided", "fzoo", "eggroll", "zo-sign", "three-points") for e in ("official", "eager")),
    *(("conservative", e, {}) for e in ("official", "eager")),
    *((w, "eager", {"queries": 2}) for w in ("lozo-m", "mezo-m", "zo-adam")),
    *((w, "eager", {"scope": "full"}) for w in ("one-sided", "three-points", "conservative", "lozo-m", "zo-adam")),
    ("lozo-m", "eager", {"lora": "dense", "batching": "sequential", "momentum": 0.5}),
    ("fzoo", "eager", {"queries": 2, "lora": "unfused"}),
    ("mezo-m", "eager", {"momentum_state": "redrawn"}),
    *(("lozo", e, {"weight_decay": 50.0, "lr_schedule": "linear", "lr_warmup": 3, "steps": 1}) for e in ("official", "eager")),
    ("factorized", "eager", {"weight_decay": 500.0, "lr_schedule": "cosine", "scope": "full"}),
    ("mezo", "eager", {"weight_decay": 500.0, "scope": "full", "queries": 2}),
    ("lozo-m", "eager", {"weight_decay": 50.0, "lr_schedule": "cosine", "steps": 3, "warmup": 7}),
    ("mezo", "eager", ADAPTER | {"queries": 2}),
    ("mezo", "eager", ADAPTER | {"lora": "unfused", "kv": "recompute", "adapter_alpha": 5.0, "adapter_rank": 3}),
    ("zo-sign", "eager", ADAPTER | {"batching": "sequential", "adapter_targets": "all"}),
    ("mezo-m", "eager", ADAPTER | {"momentum_state": "redrawn", "adapter_targets": "fc1,out_proj"}),
    ("zo-adam", "eager", ADAPTER | {"weight_decay": 5.0}),
]  # fmt: skip


@pytest.mark.parametrize(("workload", "executor", "changes"), METHODS, ids=str)
def test_a_method_follows_its_formula(
    workload: str,
    executor: str,
    changes: dict,
    tiny_spec: Make,
    loaded: Make,
    plain_loop: Make,
    tiny_source: Make,
    tiny_task: Any,
) -> None:
    """Across resampled V, with learning rates that change and weights that decay."""
    spec, source = tiny_spec(workload, executor, **changes), tiny_source("opt")
    loss_error, change_error = follow(loaded(spec, source, tiny_task), plain_loop(source, spec), tiny_task.train)
    assert loss_error <= LOSS_TOLERANCE
    assert change_error <= CHANGE_TOLERANCE


@pytest.mark.parametrize(("architecture", "targets"), [("llama", "q_proj,v_proj"), ("gpt2", "c_attn,c_fc")])
def test_an_adapter_stands_beside_weights_that_stay(
    architecture: str, targets: str, tiny_spec: Make, loaded: Make, plain_loop: Make, tiny_source: Make, tiny_task: Any
) -> None:
    """Merged q, k and v and transposed matrices too; every bit of the model is as it was loaded."""
    spec, source = tiny_spec("mezo", "eager", **ADAPTER, adapter_targets=targets), tiny_source(architecture)
    executor = loaded(spec, source, tiny_task)
    before = [parameter.detach().clone() for parameter in executor._scorer.model.parameters()]
    loss_error, change_error = follow(executor, plain_loop(source, spec), tiny_task.train)
    assert loss_error <= LOSS_TOLERANCE
    assert change_error <= CHANGE_TOLERANCE
    assert all(map(torch.equal, before, executor._scorer.model.parameters()))
    work = executor.work(tiny_task.train, make_workload(spec).plan(0))
    assert (work["weight_bytes_written"], work["fold_bytes_written"]) == (0, 0)
    assert work["adapter_bytes_written"] == 3 * 4 * sum(value.numel() for value in executor.parameters().values())


@pytest.mark.parametrize(("workload", "executor", "scope", "architecture"), CELLS)
def test_a_cell_follows_the_float64_loop(
    workload: str, executor: str, scope: str, architecture: str, tiny_spec: Make, loaded: Make, plain_loop: Make,
    tiny_source: Make, tiny_task: Any,
) -> None:  # fmt: skip
    spec, source = tiny_spec(workload, executor, scope=scope), tiny_source(architecture)
    loss_error, change_error = follow(loaded(spec, source, tiny_task), plain_loop(source, spec), tiny_task.train)
    assert loss_error <= LOSS_TOLERANCE
    assert change_error <= CHANGE_TOLERANCE


ACCUMULATING = [(w, e) for w in KINDS for e in ("official", "eager") if e == "eager" or not w.endswith(("-m", "adam"))]


@pytest.mark.parametrize(("workload", "executor"), ACCUMULATING)
def test_a_step_of_several_minibatches_is_their_mean_however_it_is_divided(
    workload: str, executor: str, tiny_spec: Make, loaded: Make, plain_loop: Make, tiny_source: Make, tiny_task: Any
) -> None:
    """Three minibatches of 5, 3 and 2 examples in forwards of at most 100 tokens, of which a minibatch takes several."""
    queries = 1 if workload == "conservative" else 2
    spec, source = tiny_spec(workload, executor, queries=queries, max_tokens=100), tiny_source("opt")
    truth, method, under_test = plain_loop(source, spec), make_workload(spec), loaded(spec, source, tiny_task)
    rows = tiny_task.train
    for number in range(6):
        step = Minibatches((rows[:5], rows[number % 4 + 1 :][:3], rows[6:]))
        every = rounds(method, number)
        work = under_test.work(step, *every)
        assert work["forwards"] > 3 * (len(every) if spec.batching == "paired" else sum(map(len, every)))
        losses = under_test.step(method, number, step)
        assert torch.allclose(losses.double(), truth.step(number, step), rtol=0, atol=LOSS_TOLERANCE), number
    assert truth.change_error(under_test.parameters()) <= CHANGE_TOLERANCE


@pytest.mark.parametrize("executor", ["official", "eager"])
def test_without_its_updates_a_cell_leaves_the_float64_loop(
    executor: str, tiny_spec: Make, loaded: Make, plain_loop: Make, tiny_source: Make, tiny_task: Any
) -> None:
    spec, source = tiny_spec("lozo", executor), tiny_source("opt")
    broken = loaded(spec, source, tiny_task)
    broken.apply = lambda update: None
    loss_error, change_error = follow(broken, plain_loop(source, spec), tiny_task.train)
    assert loss_error > LOSS_TOLERANCE
    assert change_error > CHANGE_TOLERANCE


@pytest.mark.parametrize("workload", ["lozo", "factorized"])
def test_without_its_folds_a_cell_leaves_the_float64_loop(
    workload: str, tiny_spec: Make, loaded: Make, plain_loop: Make, tiny_source: Make, tiny_task: Any
) -> None:
    class Forgetful(AccumulatedState):
        def fold(self, weights: dict, epochs: Any) -> None:
            super().fold({}, epochs)

    spec, source = tiny_spec(workload, "eager"), tiny_source("opt")
    broken = loaded(spec, source, tiny_task)
    broken.moved.state = Forgetful(broken.layout, "cpu", torch.float32)
    loss_error, change_error = follow(broken, plain_loop(source, spec), tiny_task.train)
    assert loss_error > LOSS_TOLERANCE
    assert change_error > CHANGE_TOLERANCE


@pytest.mark.parametrize("executor", ["official", "eager"])
@pytest.mark.parametrize("workload", ["lozo", "mezo", "factorized"])
def test_three_queries_are_the_mean_of_three_single_ones(
    workload: str, executor: str, tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any
) -> None:
    spec, source, batch = tiny_spec(workload, executor, queries=3), tiny_source("opt"), tiny_task.train
    method, single = make_workload(spec), make_workload(tiny_spec(workload, executor))
    together = loaded(spec, source, tiny_task)
    before = together.parameters()
    losses = together.step(method, 0, batch)
    after, changes = together.parameters(), []
    for query in range(3):
        alone = loaded(spec, source, tiny_task)
        probes = method.plan(0)[2 * query : 2 * query + 2]
        pair = alone.score(batch, probes)
        assert torch.allclose(pair, losses[2 * query : 2 * query + 2], rtol=0, atol=2e-6)
        coefficient = -spec.learning_rate * single.projected_gradients(pair)[0]
        alone.apply(type(method.update(0, losses))(((probes[0].direction, coefficient),)))
        found = alone.parameters()
        changes.append({name: (found[name] - before[name]).double() for name in before})
    for name in before:
        mean = sum(change[name] for change in changes) / 3
        assert torch.allclose((after[name] - before[name]).double(), mean, rtol=0, atol=1e-6), name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(
    ("workload", "executor", "changes"),
    [*((w, e, {}) for w in ("lozo", "mezo", "factorized") for e in ("official", "eager")), ("mezo", "eager", ADAPTER)],
)
def test_every_cell_runs_in_every_precision(
    workload: str, executor: str, changes: dict, dtype: str, tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any
) -> None:
    """The gate's tolerance before the first step, then steps over a fold, all finite."""
    source, batch = tiny_source("opt"), tiny_task.train
    spec = tiny_spec(workload, executor, **{"dtype": dtype, "interval": 2, "learning_rate": 1e-6} | changes)
    method = make_workload(spec)

    def reference(examples: Any, probes: Any, name: str) -> torch.Tensor:
        return reference_losses(source, tiny_spec(workload, executor, **{"dtype": name} | changes), examples, probes)

    expect = gate.expected(reference, batch, method.plan(0), dtype, "cpu")
    under_test = loaded(spec, source, tiny_task)
    check, _ = gate.check(under_test, expect)
    assert check.passed, check
    assert steps(under_test, method, 0, [batch] * 3).isfinite().all()
    assert all(value.isfinite().all() for value in under_test.parameters().values())


def test_the_reference_is_the_same_in_float64(tiny_spec: Make, plain_loop: Make, tiny_source: Make, tiny_task: Any) -> None:
    spec, source = tiny_spec("lozo", "eager", scope="full"), tiny_source("llama")
    truth = plain_loop(source, spec).step(0, tiny_task.train)
    probes = make_workload(spec).plan(0)
    wide = reference_losses(source, spec, tiny_task.train, probes, arithmetic=torch.float64)
    assert torch.allclose(wide, truth, rtol=0, atol=2e-6)  # the architecture itself takes its softmax in float32
    assert torch.allclose(reference_losses(source, spec, tiny_task.train, probes).double(), truth, rtol=0, atol=1e-5)
