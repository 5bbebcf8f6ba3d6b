"""The same fine-tuning on every executor: opt-tiny, 60 LoZO steps over two V-resamples, shared directions, float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from served import Served

from bench.api import Executor
from bench.config import RunSpec
from bench.data import ModelSource, TaskData
from bench.registry import executor_entry, make_executor, make_workload
from workloads.models.weights import load_model
from workloads.parameters.accumulated import AccumulatedState
from workloads.tasks.batches import batch_stream
from workloads.tasks.load import load_task

STEPS, FREE = 60, 10
BASE = RunSpec(
    **dict(workload="lozo", executor="eager", model="opt-tiny", weights="pretrained", task="sst2", dtype="float32", device="cpu"),
    **dict(directions="shared", **executor_entry("eager").fastest, rank=2, interval=20, learning_rate=5e-4, steps=STEPS),
)
DENSE = {"lora": "dense", "batching": "sequential"}
OWN: dict[str, dict[str, Any]] = {"mezo": {"learning_rate": 5e-4}, "factorized": {"learning_rate": 5e-4, "rank": 8}}


def spec_of(name: str, workload: str = "lozo") -> RunSpec:
    """The spec of a workload on an executor, all with the same directions."""
    features = executor_entry(name).fastest | {"directions": "shared"} | (DENSE if workload == "mezo" else {})
    return replace(BASE, executor=name, workload=workload, **features, **OWN.get(workload, {}))


@dataclass(frozen=True)
class Trajectory:
    losses: torch.Tensor
    gradients: torch.Tensor
    weights: dict[str, torch.Tensor]


def run(executor: Executor, spec: RunSpec, task: TaskData, truth: Trajectory | None = None) -> Trajectory:
    """The steps of a loaded executor. With a truth, steps after the first FREE move by its losses: what each one adds is
    compared, and not how rounding grows over the steps before it."""
    workload, stream, found = make_workload(spec), batch_stream(task.train, spec.batch_size, spec.seed), []
    for step in range(STEPS):
        batch = next(stream)
        if truth is None or step < FREE:
            losses = executor.step(workload, step, batch).clone()
        else:
            losses = executor.score(batch, workload.plan(step)).clone()
            executor.apply(workload.update(step, truth.losses[step]))
        found.append(losses)
    losses = torch.stack(found)
    return Trajectory(losses, workload.projected_gradients(losses), executor.parameters())


@pytest.fixture(scope="module")
def task(opt_tiny: ModelSource) -> TaskData:
    return load_task("sst2", source=opt_tiny)


@pytest.fixture(scope="module")
def train(opt_tiny: ModelSource, task: TaskData) -> Callable[..., Trajectory]:
    def call(name: str, workload: str = "lozo", truth: Trajectory | None = None) -> Trajectory:
        executor, spec = make_executor(name), spec_of(name, workload)
        executor.load(spec, opt_tiny, task)
        try:
            return run(executor, spec, task, truth)
        finally:
            executor.close()

    return call


@pytest.fixture(scope="module")
def vllm_by(opt_tiny: ModelSource, task: TaskData) -> Iterator[Callable[..., Trajectory]]:
    """Both loops and all workloads on one engine, each from the state it was loaded with."""
    served = Served(opt_tiny, spec_of("vllm"), replace(spec_of("vllm", "mezo"), scope="full"), task)

    def call(loop: str, workload: str = "lozo", truth: Trajectory | None = None) -> Trajectory:
        spec = replace(spec_of("vllm", workload), loop=loop)
        return run(served.by(spec), spec, task, truth)

    yield call
    served.executor.close()


@pytest.fixture(scope="module")
def eager(train: Callable[..., Trajectory]) -> Callable[[str], Trajectory]:
    """What the others are compared with, trained once for each workload."""
    return cache(lambda workload: train("eager", workload))


@pytest.fixture(scope="module")
def start(opt_tiny: ModelSource) -> dict[str, torch.Tensor]:
    return dict(load_model(opt_tiny, torch.float32, "cpu").named_parameters())


def differences(found: Trajectory, truth: Trajectory, start: dict[str, torch.Tensor]) -> tuple[float, float, float]:
    """Largest difference of losses and of projected gradients, and ||dW_a - dW_b|| / ||dW_b||."""
    error = sum((found.weights[name] - weight).square().sum() for name, weight in truth.weights.items())
    size = sum((weight - start[name]).square().sum() for name, weight in truth.weights.items())
    gaps = (found.losses - truth.losses).abs().max(), (found.gradients - truth.gradients).abs().max()
    return float(gaps[0]), float(gaps[1]), float((error / size).sqrt())  # type: ignore[union-attr, operator]


def test_the_loss_moves(eager: Callable[[str], Trajectory]) -> None:
    mean = eager("lozo").losses.mean(1)
    assert mean[-10:].mean() < 0.9 * mean[:10].mean()


def close_to(found: Trajectory, truth: Trajectory, start: dict[str, torch.Tensor]) -> bool:
    losses, gradients, change = differences(found, truth, start)
    return losses <= 2e-5 and gradients <= 2e-2 and change <= 1e-3


WORKLOADS = pytest.mark.parametrize("workload", ["lozo", "mezo", "factorized"])


@WORKLOADS
def test_official_follows_eager(
    workload: str, train: Callable[..., Trajectory], eager: Callable[[str], Trajectory], start: dict[str, torch.Tensor]
) -> None:
    truth = eager(workload)
    found = train("official", workload, truth)
    assert close_to(found, truth, start), differences(found, truth, start)


@WORKLOADS
@pytest.mark.parametrize("loop", ["resident", "requests"])
def test_vllm_follows_eager(
    loop: str,
    workload: str,
    vllm_by: Callable[..., Trajectory],
    eager: Callable[[str], Trajectory],
    start: dict[str, torch.Tensor],
) -> None:
    truth = eager(workload)
    found = vllm_by(loop, workload, truth)
    assert close_to(found, truth, start), differences(found, truth, start)


@pytest.mark.parametrize("executor", ["eager", "resident", "requests"])
@pytest.mark.parametrize("broken", ["add", "fold"])
def test_without_the_update_or_the_fold_they_part(
    broken: str,
    executor: str,
    train: Callable[..., Trajectory],
    vllm_by: Callable[..., Trajectory],
    eager: Callable[[str], Trajectory],
    start: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forget(self: AccumulatedState, *_: object) -> None:
        self.pending.clear()

    truth = eager("lozo")
    monkeypatch.setattr(AccumulatedState, broken, forget)
    found = train("eager") if executor == "eager" else vllm_by(executor)
    losses, _, change = differences(found, truth, start)
    assert losses > 1e-3 and change > 0.1
