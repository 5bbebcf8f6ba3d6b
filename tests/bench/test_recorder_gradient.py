"""gradient_quality against a loop in float64: its own model, its own directions, autograd, estimates by the papers' formulas."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
import torch
from plain_loop import PlainLoop
from plain_methods import at

from bench.api import FACTORED
from bench.recorders import gradient_quality, observe, unasked
from bench.recorders.context import ProfileContext
from bench.registry import RECORDERS, make_workload, workload_class

DRAWS = 16


def truth(loop, steps, batch):
    """[(estimate, gradient, [(measured, true slope)])] of each step: two-sided differences in float64, autograd."""
    stored = [loop.model.get_parameter(name).requires_grad_(True) for name in loop.weights]
    gradient = dict(zip(loop.weights, torch.autograd.grad(loop.loss(batch), stored), strict=True))
    for parameter in stored:
        parameter.requires_grad_(False)
    eps = loop.spec.eps
    for step in steps:
        zs = [loop.z(step, query) for query in range(loop.spec.queries)]
        slopes = [(float(at(loop, z, eps, batch) - at(loop, z, -eps, batch)) / (2 * eps)) for z in zs]
        exact = [sum(float((z[name] * gradient[name]).sum()) for name in z) for z in zs]
        weights = [1.0 if g > 0 else -1.0 for g in slopes] if loop.spec.workload == "zo-sign" else slopes
        estimate = {name: sum(g * z[name] for g, z in zip(weights, zs, strict=True)) / len(zs) for name in gradient}
        yield estimate, gradient, list(zip(slopes, exact, strict=True))


def product(a, b):
    return sum(float((a[name] * b[name]).sum()) for name in a)


def cosine(a, b):
    return product(a, b) / (product(a, a) * product(b, b)) ** 0.5


@pytest.mark.parametrize(
    ("workload", "settings"),
    [
        ("lozo", {"queries": 1}),
        ("lozo", {"queries": 2, "rank": 4}),
        ("mezo", {"queries": 2}),
        ("zo-sign", {"queries": 3}),
        ("factorized", {"queries": 1}),
        ("zo-adam", {"queries": 1}),
        ("lozo-m", {"queries": 1}),
    ],
)
def test_it_finds_what_a_float64_loop_finds(workload, settings, tiny_source, tiny_task, tiny_spec, loaded, monkeypatch):
    monkeypatch.setattr(gradient_quality, "DRAWS", DRAWS)
    source, spec = tiny_source("opt"), tiny_spec(workload, "eager", lr_schedule="linear", steps=5, **settings)
    batch = tiny_task.train[:4]
    executor = loaded(spec, source, tiny_task)
    probes = make_workload(spec).plan(6)
    context = ProfileContext(executor, spec, source, tiny_task, batch, (probes,), 1e-3, torch.device("cpu"), 1)
    before = executor.checksum()
    found, warnings = observe(context, ["gradient_quality"], lambda _: None)
    assert warnings == [] and executor.checksum() == before
    quality = found["gradient_quality"]

    loop = PlainLoop(source, replace(spec, lr_schedule="constant"))
    kept = spec.interval if workload_class(workload).kind in FACTORED[:1] else 1
    steps = [(6 // kept + 1 + number) * kept for number in range(DRAWS)]
    made = list(truth(loop, steps, batch))
    cosines = [cosine(estimate, gradient) for estimate, gradient, _ in made]
    assert quality["cosine"] == pytest.approx(fmean(cosines), abs=2e-3)
    pairs = [cosine({n: a[n] + b[n] for n in a}, g) for (a, g, _), (b, _, _) in zip(made[0::2], made[1::2], strict=True)]
    assert quality["averaged"]["2"] == pytest.approx(fmean(pairs), abs=2e-3)
    assert set(quality["averaged"]) == {"1", "2", "4", "8", "16"}
    slopes = [pair for _, _, pairs in made for pair in pairs]
    agree = fmean((measured > 0) == (true > 0) for measured, true in slopes)
    assert quality["sign_agreement"] == pytest.approx(agree, abs=1.5 / len(slopes))
    length = product(made[0][1], made[0][1])
    assert quality["gradient_norm"] == pytest.approx(length**0.5, rel=1e-6)
    assert quality["gain"] == pytest.approx(fmean(product(e, g) / length for e, g, _ in made), rel=5e-3)
    assert quality["loss"] == pytest.approx(loop.loss(batch).item(), rel=1e-6)
    assert quality["minibatches"] == len(probes)


def test_it_watches_only_where_it_is_named():
    assert "gradient_quality" in RECORDERS and "gradient_quality" not in unasked() and "memory" in unasked()


def test_a_model_that_is_too_large_is_left_alone(tiny_source, tiny_task, tiny_spec, loaded, monkeypatch):
    monkeypatch.setattr(gradient_quality, "LARGEST", 1000)
    source, spec = tiny_source("opt"), tiny_spec("lozo", "eager")
    probes = make_workload(spec).plan(0)
    executor = loaded(spec, source, tiny_task)
    context = ProfileContext(executor, spec, source, tiny_task, tiny_task.train, (probes,), 1e-3, torch.device("cpu"), 1)
    found, (warning,) = observe(context, ["gradient_quality"], lambda _: None)
    assert found == {} and "back-propagation beside it is for at most 1,000" in warning
