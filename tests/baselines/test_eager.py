"""The eager executor's features: every valid combination computes the same, exact restores, what falls back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from prefixes import long_task, plain_loss, plain_scores, target_task
from stepping import steps

from bench.api import Probe
from bench.errors import UsageError
from bench.registry import make_workload
from workloads.reference import reference_losses

Make = Callable[..., Any]
FEATURES = [
    {"lora": lora, "batching": batching, "kv": kv}
    for lora, batching, kv in product(("dense", "unfused", "fused"), ("sequential", "paired"), ("recompute", "shared"))
    if (lora, batching) != ("dense", "paired")
]


@pytest.mark.parametrize(("workload", "scope", "architecture"), [
    ("lozo", "lora", "opt"), ("lozo", "full", "opt"), ("factorized", "lora", "qwen3"), ("factorized", "full", "llama"),
])  # fmt: skip
def test_all_combinations_of_features_agree(
    workload: str, scope: str, architecture: str, tiny_spec: Make, loaded: Make, plain_loop: Make, tiny_source: Make,
    tiny_task: Any,
) -> None:  # fmt: skip
    """Switched in turn in one executor: with updates pending, across folds, two queries."""
    source = tiny_source(architecture)
    spec = tiny_spec(workload, "eager", scope=scope, queries=2)
    executor, truth, method = loaded(spec, source, tiny_task), plain_loop(source, spec), make_workload(spec)
    for step in range(6):
        expected, before = truth.step(step, tiny_task.train), executor.parameters()
        for features, variant in product(FEATURES, ("every position", "unpadded", "")):
            executor.switch(replace(spec, **features, variant=variant))
            losses = executor.score(tiny_task.train, method.plan(step))
            assert torch.allclose(losses.double(), expected, rtol=0, atol=2e-5), (step, features, variant)
            if step == 1:
                unchanged = executor.parameters()
                assert all(torch.equal(before[name], unchanged[name]) for name in before), features
        executor.switch(replace(spec, **FEATURES[step * 3 % len(FEATURES)]))
        executor.apply(method.update(step, losses))
    assert truth.change_error(executor.parameters()) <= 1e-3


@pytest.mark.parametrize("kv", ["recompute", "shared"])
@pytest.mark.parametrize("scope", ["lora", "full"])
def test_mezo_agrees_at_both_values_of_kv(
    kv: str, scope: str, tiny_spec: Make, loaded: Make, plain_loop: Make, tiny_source: Make, tiny_task: Any
) -> None:
    spec, source = tiny_spec("mezo", "eager", scope=scope, kv=kv, queries=2), tiny_source("opt")
    losses = loaded(spec, source, tiny_task).score(tiny_task.train, make_workload(spec).plan(0))
    assert torch.allclose(losses.double(), plain_loop(source, spec).step(0, tiny_task.train), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("workload", "features"), [
    ("mezo", {}), ("lozo", {}), ("lozo", {"lora": "dense", "batching": "sequential"}), ("factorized", {"lora": "unfused"}),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_scoring_leaves_16_bit_weights_bit_for_bit(
    workload: str, features: dict, dtype: str, tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any
) -> None:
    spec = tiny_spec(workload, "eager", scope="full", dtype=dtype, **features)
    executor, method = loaded(spec, tiny_source("opt"), tiny_task), make_workload(spec)
    before = executor.parameters()
    losses = executor.score(tiny_task.train, method.plan(0))
    after = executor.parameters()
    assert losses[0] != losses[1]
    assert all(torch.equal(before[name], after[name]) for name in before)
    executor.apply(method.update(0, losses))
    moved = executor.parameters()
    assert any(not torch.equal(before[name], moved[name]) for name in before)


def test_16_bit_folds_replay_and_keep_the_update_on_average(
    tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any
) -> None:
    """Folding at every step in float16 follows the float32 weights; rounding to nearest would lose most of it."""
    spec, source = tiny_spec("factorized", "eager", dtype="float16", learning_rate=1e-6), tiny_source("opt")
    method, found = make_workload(spec), []
    for _ in range(2):
        executor = loaded(spec, source, tiny_task)
        start = executor.parameters()
        losses = steps(executor, method, 0, [tiny_task.train] * 6)
        found.append((losses, executor.parameters(), executor.details()))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in start)
    assert found[0][2]["folds"] == 5
    assert 0 < found[0][2]["fold_absorbed_fraction"] < 0.9
    meant, added = [], []
    for name in start:
        added.append((found[0][1][name] - start[name]).flatten())
    wide = loaded(replace(spec, dtype="float32"), source, tiny_task)
    begin = wide.parameters()
    gradients = method.projected_gradients(found[0][0].float())
    for step in range(6):
        terms = ((method.plan(step)[0].direction, -spec.learning_rate * gradients[step, 0]),)
        wide.apply(type(method.update(0, losses[0]))(terms))
    end = wide.parameters()
    for name in start:
        meant.append((end[name] - begin[name]).flatten())
    dot = torch.cat(meant) @ torch.cat(added) / torch.cat(meant).square().sum()
    assert dot == pytest.approx(1.0, abs=0.1), "along the update, nothing is lost on average"


@pytest.mark.parametrize("make", [long_task, target_task])
def test_answers_of_several_tokens_cost_each_distinct_prefix_once(
    make: Make, tiny_spec: Make, loaded: Make, tiny_source: Make
) -> None:
    source, task = tiny_source("opt", max_position_embeddings=128), make()
    spec = tiny_spec("lozo", "eager", eps=1e-2, batch_size=6)
    executor, plain = loaded(spec, source, task), loaded(tiny_spec("lozo", "official", eps=1e-2, batch_size=6), source, task)
    probes, batch = make_workload(spec).plan(0), task.train
    truth = torch.tensor([plain_loss(plain_scores(source, batch, probe), batch, task.objective) for probe in probes])
    assert torch.allclose(plain.score(batch, probes), truth, rtol=0, atol=2e-5)
    nodes = {row[:end] for e in batch for row, _ in e.rows() for end in range(1, len(row))}
    whole = sum(len(row) for e in batch for row, _ in e.rows())
    for features, variant in product(FEATURES, ("unpadded", "every position", "")):
        executor.switch(replace(spec, **features, variant=variant))
        assert torch.allclose(executor.score(batch, probes), truth, rtol=0, atol=2e-5), (features, variant)
        expected = len(nodes) if features["kv"] == "shared" else whole
        assert executor.work(batch, probes)["tokens_real"] == 2 * expected
        assert executor.details()["kv_used"] == features["kv"]
        assert torch.allclose(executor.evaluate(batch), plain.evaluate(batch), rtol=0, atol=2e-5)
    assert executor.generate(batch) == plain.generate(batch)


@pytest.mark.parametrize("make", [long_task, target_task])
def test_in_forwards_of_few_tokens_nothing_changes_but_their_number(
    make: Make, tiny_spec: Make, loaded: Make, tiny_source: Make
) -> None:
    """Losses, held-out log-probs and answers; an example that is larger by itself has a forward of its own."""
    source, task = tiny_source("opt", max_position_embeddings=128), make()
    specs = [tiny_spec("lozo", name, eps=1e-2, batch_size=6, max_tokens=200) for name in ("eager", "official")]
    probes, batch = make_workload(specs[0]).plan(0), task.train
    truth = torch.tensor([plain_loss(plain_scores(source, batch, probe), batch, task.objective) for probe in probes])
    for spec in specs:
        whole, small = loaded(replace(spec, max_tokens=0), source, task), loaded(spec, source, task)
        for features in FEATURES if spec.executor == "eager" else [{}]:
            for executor, most in ((whole, 0), (small, 200)):
                executor.switch(replace(spec, **features, max_tokens=most))
            assert torch.allclose(small.score(batch, probes), truth, rtol=0, atol=2e-5), features
            divided, once = (executor.work(batch, probes) for executor in (small, whole))
            assert divided["forwards"] > once["forwards"] and divided["tokens_real"] >= once["tokens_real"]
        assert torch.allclose(small.evaluate(batch), whole.evaluate(batch), rtol=0, atol=2e-5)
        assert small.generate(batch) == whole.generate(batch)
        assert whole.details()["max_tokens"] % 1024 == 0 and small.details()["max_tokens"] == 200


@pytest.mark.parametrize("architecture", ["opt", "llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("workload", ["lozo", "factorized", "mezo"])
def test_under_scope_full_too_each_distinct_prefix_is_run_once(
    workload: str, architecture: str, tiny_spec: Make, loaded: Make, tiny_source: Make
) -> None:
    """Norms and embeddings are a probe's own there, on that probe's part of the packed rows."""
    sizes = {"n_positions": 128} if architecture == "gpt2" else {"max_position_embeddings": 128}
    source, task = tiny_source(architecture, **sizes), long_task()
    spec = tiny_spec(workload, "eager", scope="full", eps=1e-2, queries=2, batch_size=6)
    probes, batch, executor = make_workload(spec).plan(0), task.train, loaded(spec, source, task)
    truth = reference_losses(source, spec, batch, probes)
    whole = executor.work(batch, probes)["tokens_real"]
    for features, variant in product(FEATURES, ("unpadded", "")):
        if workload == "mezo" and features["lora"] != "dense":
            continue
        executor.switch(replace(spec, **features, variant=variant))
        assert torch.allclose(executor.score(batch, probes), truth, rtol=0, atol=2e-5), (features, variant)
        assert executor.details()["kv_used"] == features["kv"]
        tokens = executor.work(batch, probes)["tokens_real"]
        assert (tokens == whole) == (features["kv"] == "shared") and tokens >= whole


def test_variants_take_one_choice_back_each(tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any) -> None:
    """The rungs of the attribution: head products at every position, and no token of padding."""
    spec, batch = tiny_spec("lozo", "eager"), tiny_task.train
    executor, probes, work = loaded(spec, tiny_source("opt"), tiny_task), make_workload(spec).plan(0), {}
    for variant in ("every position", "unpadded", ""):
        executor.switch(replace(executor.spec, batching="sequential", kv="recompute", lora="dense", variant=variant))
        work[variant] = executor.work(batch, probes)
    plain, options = work[""], sum(len(e.options) for e in batch) * len(probes)
    assert work["every position"] == plain | {"head_rows": plain["head_rows"] // options * plain["tokens_scored"]}
    assert work["unpadded"] == plain | {"tokens_scored": plain["tokens_real"]} != plain
    with pytest.raises(UsageError, match="every position, unpadded"):
        executor.switch(replace(executor.spec, batching="paired", kv="shared", lora="fused", variant="compiled"))


def test_probes_may_come_in_any_number(tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any) -> None:
    """One side only, three shifts of one direction, ragged groups: each as if scored by itself."""
    spec = tiny_spec("lozo", "eager", queries=2)
    executor = loaded(spec, tiny_source("opt"), tiny_task)
    first, _, second, _ = make_workload(spec).plan(0)
    probes = [first, Probe(first.direction, 5e-3), Probe(first.direction, 0.0), second]
    alone = torch.cat([executor.score(tiny_task.train, [probe]) for probe in probes])
    assert torch.allclose(executor.score(tiny_task.train, probes), alone, rtol=0, atol=2e-6)


def test_evaluation_sees_what_is_pending_and_changes_nothing(
    tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any
) -> None:
    for workload, features in (
        ("lozo", {}),
        ("factorized", {"queries": 2}),
        ("lozo", {"lora": "dense", "batching": "sequential"}),
    ):
        spec = tiny_spec(workload, "eager", learning_rate=1e-2, **features)
        method, seen = make_workload(spec), {}
        for evaluates in (True, False):
            executor = loaded(spec, tiny_source("opt"), tiny_task)
            before = executor.evaluate(tiny_task.eval)
            for step in range(3):
                seen[evaluates, step] = steps(executor, method, step, [tiny_task.train])
                if evaluates:
                    after = executor.evaluate(tiny_task.eval)
            seen[evaluates] = executor.parameters()
        assert (after - before).abs().max() > 1e-3
        assert all(torch.equal(seen[True, step], seen[False, step]) for step in range(3))
        assert all(torch.allclose(seen[True][name], seen[False][name], atol=1e-7) for name in seen[True])


def test_dense_weights_hold_one_state_at_a_time(tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any) -> None:
    executor = loaded(tiny_spec("lozo", "eager"), tiny_source("opt"), tiny_task)
    with pytest.raises(UsageError, match="--lora dense --batching paired"):
        executor.switch(replace(executor.spec, batching="paired", kv="shared", lora="dense"))


def test_work_and_memory_are_counted_from_rows_and_tensors(
    tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any
) -> None:
    spec = tiny_spec("lozo", "eager")
    executor, method, batch = loaded(spec, tiny_source("opt"), tiny_task), make_workload(spec), tiny_task.train
    shared = executor.work(batch, method.plan(0))
    assert shared["forwards"] == 1
    assert (shared["rows"], shared["tokens_scored"]) == (16, 16 * 32)
    assert shared["tokens_real"] == 2 * sum(len(e.prompt) for e in batch)
    assert shared["head_rows"] == 2 * 8 * 2
    assert shared["weight_bytes_written"] == 0
    executor.switch(replace(executor.spec, batching="sequential", kv="recompute", lora="dense"))
    plain = executor.work(batch, method.plan(0))
    scoped = sum(value.numel() * 4 for value in executor.parameters().values())
    assert (plain["forwards"], plain["rows"], plain["head_rows"]) == (2, 32, 32 * 320)
    assert plain["weight_bytes_written"] == 3 * scoped
    before = executor.memory_parts()
    executor.switch(replace(executor.spec, batching="paired", kv="shared", lora="fused"))
    steps(executor, method, 0, [batch])
    after = executor.memory_parts()
    assert before["weights"] - after["weights"] == scoped
    assert after["accumulated_state"] == 4 * 2 * sum(value.shape[0] for value in executor.parameters().values())
