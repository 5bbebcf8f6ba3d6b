"""Fine-tuning is real: held-out accuracy rises with LoZO for every seed, and does not when the gradient's sign is a coin toss.

`python -m pytest tests/bench/test_learning.py --seeds 5 -s` prints the accuracies that docs/results.md quotes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from baselines.eager.executor import EagerExecutor
from bench.api import Direction, Update
from bench.config import RunSpec
from bench.data import ModelSource, TaskData
from bench.defaults import complete
from bench.registry import make_workload
from workloads.tasks.batches import batch_stream
from workloads.tasks.load import load_task
from workloads.tasks.loss import accuracy
from workloads.two_sided import TwoSided


@dataclass(frozen=True)
class CoinToss(TwoSided):
    """The workload given, its update turned around at random: same directions, same step sizes, no information."""

    inner: TwoSided

    def direction(self, step: int, query: int) -> Direction:
        return self.inner.direction(step, query)

    def update(self, step: int, losses: torch.Tensor) -> Update:
        generator = torch.Generator().manual_seed(10_000 * self.seed + step)
        sign = 1.0 if torch.rand((), generator=generator) < 0.5 else -1.0
        return Update(tuple((d, sign * c) for d, c in self.inner.update(step, losses).terms))


@pytest.fixture(scope="module")
def task(opt_tiny: ModelSource) -> TaskData:
    return load_task("sst2", source=opt_tiny)


def train(spec: RunSpec, control: bool, source: ModelSource, task: TaskData) -> tuple[float, float]:
    """Held-out accuracy before and after."""
    executor, workload = EagerExecutor(), make_workload(spec)
    if control:
        settings = (spec.learning_rate, spec.eps, spec.rank, spec.interval, spec.queries, spec.seed)
        workload = CoinToss(*settings, inner=workload)  # type: ignore[arg-type]
    executor.load(spec, source, task)
    labels, stream = torch.tensor([e.label for e in task.eval]), batch_stream(task.train, spec.batch_size, spec.seed)
    before = accuracy(executor.evaluate(task.eval), labels)
    for step in range(spec.warmup + spec.steps):
        executor.step(workload, step, next(stream))
    return before, accuracy(executor.evaluate(task.eval), labels)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--seeds", default=3)))


def test_accuracy_rises_by_the_losses_alone(seed: int, opt_tiny: ModelSource, task: TaskData) -> None:
    spec = replace(complete({"executor": "eager", "device": "cpu"}), seed=seed)
    before, after = train(spec, False, opt_tiny, task)
    _, control = train(spec, True, opt_tiny, task)
    print(f"\nseed {seed}: {before:.3f} -> {after:.3f}, control {control:.3f}")
    assert after >= before + 0.15
    assert control < before + 0.03
