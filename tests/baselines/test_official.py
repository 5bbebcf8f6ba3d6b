"""What the official loop does besides the golden trajectories: its quirks, its scope, its two ways of drawing directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from stepping import steps

from baselines.official import LozoLoop, MezoLoop
from baselines.official.loss import option_loss
from bench.data import ModelSource
from bench.errors import UsageError
from bench.registry import make_workload
from workloads.models.scope import layout
from workloads.models.weights import load_model
from workloads.tasks.collate import option_rows

Make = Callable[..., Any]
EPS, RATE = 1e-3, 1e-4


def lozo(model: torch.nn.Module, interval: int, **options: Any) -> LozoLoop:
    rng = np.random.RandomState(42)
    return LozoLoop(model, eps=EPS, rank=2, interval=interval, learning_rate=RATE, scope="lora", rng=rng, **options)


def drawn_by_hand(model: torch.nn.Module, seed: int, v: dict | None = None) -> tuple[dict, dict]:
    """U V^T of one pass over the stream; V drawn on the way unless it is given."""
    torch.manual_seed(seed)
    z, found = {}, {}
    for name, (rows, columns) in layout(model, "lora").items():
        found[name] = v[name] if v else torch.randn(columns, 2)
        z[name] = torch.randn(rows, 2) @ found[name].T
    return z, found


@pytest.mark.parametrize("measured", [False, True])
def test_at_a_resampling_step_upstream_moves_along_another_direction_than_it_measured(
    measured: bool, tiny_source: Make, tiny_task: Any
) -> None:
    model, batch = load_model(tiny_source("opt"), torch.float32, "cpu"), option_rows(tiny_task.train, 1)
    before = {name: model.get_parameter(name).clone() for name in layout(model, "lora")}
    record = lozo(model, interval=1, measured=measured).step(batch)
    measured_z, v = drawn_by_hand(model, record.seed)
    update_z, _ = drawn_by_hand(model, record.seed, v)
    for name, weight in before.items():
        moved = (model.get_parameter(name) - weight) / (-RATE * record.projected_grad)
        along, other = (measured_z, update_z) if measured else (update_z, measured_z)
        assert torch.allclose(moved, along[name], atol=1e-2), name
        assert not torch.allclose(moved, other[name], atol=1.0), name


def test_upstream_and_measured_directions_part_at_interval_1_after_agreeing_on_the_first_measurement(
    tiny_source: Make, tiny_task: Any
) -> None:
    batch, found = option_rows(tiny_task.train, 1), {}
    for measured in (False, True):
        model = load_model(tiny_source("opt"), torch.float32, "cpu")
        loop = lozo(model, interval=1, measured=measured)
        found[measured] = [loop.step(batch) for _ in range(5)]
    assert found[False][0] == found[True][0]
    assert [r.seed for r in found[False]] == [r.seed for r in found[True]]
    assert abs(found[False][4].loss_plus - found[True][4].loss_plus) > 2e-4


def test_between_two_resamplings_the_update_is_the_measured_direction(tiny_source: Make, tiny_task: Any) -> None:
    model, batch = load_model(tiny_source("opt"), torch.float32, "cpu"), option_rows(tiny_task.train, 1)
    loop = lozo(model, interval=5)
    loop.step(batch)
    before = {name: model.get_parameter(name).clone() for name in layout(model, "lora")}
    record = loop.step(batch)
    z, _ = drawn_by_hand(model, record.seed, loop.v)
    for name, weight in before.items():
        moved = (model.get_parameter(name) - weight) / (-RATE * record.projected_grad)
        assert torch.allclose(moved, z[name], atol=1e-2), name


def test_the_scope_lora_is_upstreams_matched_setting_on_opt(tiny_source: Make) -> None:
    model = load_model(tiny_source("opt"), torch.float32, "cpu")
    matched = [name for name, parameter in model.named_parameters() if "embed" not in name and parameter.ndim == 2]
    assert list(layout(model, "lora")) == matched


def test_parameters_frozen_one_by_one_stay_where_they_are(tiny_source: Make, tiny_task: Any) -> None:
    model = load_model(tiny_source("opt"), torch.float32, "cpu").requires_grad_(True)
    frozen = model.get_parameter("model.decoder.layers.0.fc1.weight").requires_grad_(False)
    before, other = frozen.clone(), model.model.decoder.layers[1].fc1.weight.detach().clone()
    MezoLoop(model, eps=EPS, learning_rate=RATE, scope="full").step(option_rows(tiny_task.train, 1))
    assert torch.equal(frozen, before)
    assert not torch.equal(model.model.decoder.layers[1].fc1.weight, other)


def test_weight_decay_spares_biases_and_norms(tiny_source: Make, tiny_task: Any) -> None:
    changes = []
    for decay in (0.0, 0.5):
        model = load_model(tiny_source("opt"), torch.float32, "cpu")
        rng = np.random.RandomState(0)
        loop = MezoLoop(model, eps=EPS, learning_rate=RATE, scope="full", weight_decay=decay, rng=rng)
        loop.step(option_rows(tiny_task.train, 1))
        changes.append({name: parameter.clone() for name, parameter in model.named_parameters()})
    start = dict(load_model(tiny_source("opt"), torch.float32, "cpu").named_parameters())
    for name, value in start.items():
        difference = changes[1][name] - changes[0][name]
        expected = torch.zeros_like(value) if "bias" in name or "layer_norm" in name else -RATE * 0.5 * value
        assert torch.allclose(difference, expected, atol=1e-7), name


def test_examples_with_different_numbers_of_options_are_averaged_one_by_one(tiny_source: Make, tiny_task: Any) -> None:
    from dataclasses import replace

    model = load_model(tiny_source("opt"), torch.float32, "cpu")
    three = replace(tiny_task.train[0], options=((7,), (9, 11), (12,)), label=2)
    alone = [option_loss(model, option_rows([example], 1)) for example in (three, *tiny_task.train[1:3])]
    together = option_loss(model, option_rows([three, *tiny_task.train[1:3]], 1))
    assert torch.allclose(together, torch.stack(alone).mean(), atol=1e-6)


def test_float16_leaves_a_residue_and_swallows_small_updates(
    tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any
) -> None:
    spec = tiny_spec("lozo", "official", dtype="float16", learning_rate=1e-7)
    executor, method = loaded(spec, tiny_source("opt"), tiny_task), make_workload(spec)
    before = executor.parameters()
    losses = executor.score(tiny_task.train, method.plan(0))
    after = executor.parameters()
    residue = torch.cat([(after[name] != before[name]).flatten() for name in before]).float().mean()
    assert 0.01 < residue < 0.9
    executor.apply(method.update(0, losses))
    moved = executor.parameters()
    changed = torch.cat([(moved[name] != after[name]).flatten() for name in before]).float().mean().item()
    assert 0 < changed < 0.5
    assert executor.details()["absorbed_fraction"] == pytest.approx(changed, abs=0.05)


def test_upstream_directions_are_the_loops_own(tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any) -> None:
    source = tiny_source("opt")
    spec = tiny_spec("lozo", "official", directions="upstream", interval=2)
    executor = loaded(spec, source, tiny_task)
    losses = steps(executor, make_workload(spec), 0, [tiny_task.train] * 4)
    model = load_model(source, torch.float32, "cpu")
    loop = lozo(model, interval=2)
    records = [loop.step(option_rows(tiny_task.train, 1)) for _ in range(4)]
    assert losses.tolist() == [[r.loss_plus, r.loss_minus] for r in records]
    facts = executor.details()
    assert facts["resample_quirk"] is True
    assert facts["numpy_seed"] == 42


def test_work_counts_four_rewrites_and_every_padded_position(
    tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any
) -> None:
    spec = tiny_spec("lozo", "official")
    executor, probes = loaded(spec, tiny_source("opt"), tiny_task), make_workload(spec).plan(0)
    work = executor.work(tiny_task.train, probes)
    scoped = sum(value.numel() * 4 for value in executor.parameters().values())
    assert work["weight_bytes_written"] == 4 * scoped
    assert (work["forwards"], work["rows"], work["tokens_scored"]) == (2, 32, 32 * 32)
    assert work["head_rows"] == 32 * 32 * 320


def test_evaluation_gives_the_options_log_probs(tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any) -> None:
    source: ModelSource = tiny_source("opt")
    model = load_model(source, torch.float32, "cpu")
    expected = torch.stack([model(torch.tensor([e.prompt])).logits[0, -1].log_softmax(-1)[[7, 9]] for e in tiny_task.eval])
    for executor in ("official", "eager"):
        found = loaded(tiny_spec("lozo", executor), source, tiny_task).evaluate(tiny_task.eval)
        assert torch.allclose(found, expected, atol=1e-5)


def test_an_unknown_scope_is_named(tiny_source: Make) -> None:
    with pytest.raises(UsageError, match="scope half"):
        MezoLoop(load_model(tiny_source("opt"), torch.float32, "cpu"), eps=EPS, learning_rate=RATE, scope="half")
