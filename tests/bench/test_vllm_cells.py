"""Every workload on vLLM, each architecture, against a float64 loop written out here: ten steps, losses and weight change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from bench.api import Batch
from bench.config import RunSpec
from bench.executors.vllm.executor import VllmExecutor
from workloads.directions import draw
from workloads.make import make_workload
from workloads.models import ModelSource
from workloads.tasks import TaskData
from workloads.weights import layout, load_model

STEPS = 10
RATES = {"lozo": 1e-4, "mezo": 1e-5, "factorized": 1e-5}


def spec_of(workload: str, **changes: object) -> RunSpec:
    dense = workload == "mezo"
    fields: dict = dict(
        workload=workload, executor="vllm", model="tiny", weights="random", task="sst2", dtype="float32", device="cpu"
    )
    fields |= dict(directions="shared", batching="sequential" if dense else "paired", kv="shared", loop="resident")
    fields |= dict(lora="dense" if dense else "fused", rank=16 if workload == "factorized" else 2, interval=4)
    return RunSpec(**(fields | dict(learning_rate=RATES[workload], batch_size=8) | changes))


class Float64Loop:
    """The same method in double precision: weights written plainly, one prompt at a time."""

    def __init__(self, source: ModelSource, spec: RunSpec) -> None:
        self.model = load_model(source, torch.float32, "cpu").double()
        self.spec, self.layout = spec, layout(self.model, spec.scope)
        self.weights = {name: parameter.data for name, parameter in self.model.named_parameters() if name in self.layout}
        self.start = {name: weight.clone() for name, weight in self.weights.items()}

    def move(self, direction: object, amount: float) -> None:
        drawn = draw(direction, self.layout, "cpu", getattr(torch, self.spec.dtype))  # type: ignore[arg-type]
        for name, weight in self.weights.items():
            weight += amount * drawn.delta(name).double()

    def loss(self, batch: Batch) -> torch.Tensor:
        scores = []
        for example in batch:
            logprobs = self.model(torch.tensor([example.prompt])).logits[0, -1].log_softmax(-1)
            scores.append(torch.stack([logprobs[option[0]] for option in example.options]))
        return F.cross_entropy(torch.stack(scores), torch.tensor([example.label for example in batch]))

    @torch.no_grad()
    def step(self, number: int, batch: Batch) -> torch.Tensor:
        workload, losses = make_workload(self.spec), []
        for probe in workload.plan(number):
            self.move(probe.direction, probe.shift)
            losses.append(self.loss(batch))
            self.move(probe.direction, -probe.shift)
        for direction, coefficient in workload.update(number, torch.stack(losses)).terms:
            self.move(direction, coefficient.item())
        return torch.stack(losses)


def relative_change_error(found: dict[str, torch.Tensor], truth: Float64Loop) -> float:
    """||dW - dW_truth|| / ||dW_truth|| over all scoped weights."""
    error = sum((found[name].double() - weight).square().sum() for name, weight in truth.weights.items())
    size = sum((weight - truth.start[name]).square().sum() for name, weight in truth.weights.items())
    return float((error / size).sqrt())  # type: ignore[union-attr, operator]


CELLS = [
    ("lozo", "opt", {"queries": 3}),
    ("mezo", "opt", {"scope": "full", "queries": 2}),
    ("factorized", "opt", {"queries": 2}),
    ("lozo", "llama", {}),
    ("factorized", "llama", {}),
    ("lozo", "qwen3", {}),
    ("factorized", "qwen3", {}),
]


@pytest.mark.parametrize(("workload", "architecture", "changes"), CELLS, ids=[f"{w}-{a}" for w, a, _ in CELLS])
def test_a_cell_follows_the_float64_loop(
    workload: str, architecture: str, changes: dict, tiny_source: Callable[[str], ModelSource], tiny_task: TaskData
) -> None:
    spec, source = spec_of(workload, **changes), tiny_source(architecture)
    truth, method, executor = Float64Loop(source, spec), make_workload(spec), VllmExecutor()
    executor.load(spec, source, tiny_task)
    try:
        for number in range(STEPS):
            batch = tiny_task.train[: 8 - number % 3]
            expected = truth.step(number, batch)
            if number % 2:  # both ways of driving the executor, in turn
                losses = executor.run_steps(method, number, [batch])[0]
            else:
                losses = executor.score(batch, method.plan(number))
                executor.apply(method.update(number, losses))
            assert torch.allclose(losses.double(), expected, rtol=0, atol=2e-5), number
        assert relative_change_error(executor.parameters(), truth) <= 1e-3
    finally:
        executor.close()


def test_float16_mezo_restores_the_weights_bit_for_bit(tiny_source: Callable[[str], ModelSource], tiny_task: TaskData) -> None:
    spec, source = spec_of("mezo", dtype="float16"), tiny_source("opt")
    method, executor = make_workload(spec), VllmExecutor()
    executor.load(spec, source, tiny_task)
    try:
        before = executor.parameters()
        losses = executor.score(tiny_task.train, method.plan(0))
        after = executor.parameters()
        assert losses[0] != losses[1]
        assert all(torch.equal(before[name], after[name]) for name in before)
        executor.apply(method.update(0, losses))
        moved = executor.parameters()
        assert any(not torch.equal(before[name], moved[name]) for name in before)
    finally:
        executor.close()
