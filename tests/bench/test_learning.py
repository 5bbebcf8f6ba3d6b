"""Fine-tuning is real: held-out scores rise with LoZO for every seed, and do not when the gradient's sign is a coin toss.

`python -m pytest tests/bench/test_learning.py --seeds 5 -s` prints the accuracies that docs/results.md quotes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
from control.coin_toss import CoinToss, DenseCoinToss

from baselines.eager.executor import EagerExecutor
from bench.config import RunSpec
from bench.data import ModelSource, TaskData
from bench.defaults import complete
from bench.registry import make_workload
from workloads.tasks.batches import batch_stream
from workloads.tasks.judge import judge
from workloads.tasks.load import load_task


@dataclass(frozen=True)
class Learned:
    """rise: at least, in the task's metric, over 300 steps; still: at most, where the signs are tossed."""

    settings: dict[str, object]
    rise: float
    still: float
    seeds: int


TASKS = {
    "sst2": Learned({}, rise=0.15, still=0.03, seeds=3),
    "tiny-choice": Learned({"learning_rate": 6e-4}, rise=0.25, still=0.1, seeds=1),
    "tiny-answer": Learned({}, rise=0.25, still=0.1, seeds=1),
    "sst2 in fp8": Learned({"quantization": "fp8"}, rise=0.42, still=0.03, seeds=1),
    "sst2 in 4 bits": Learned(
        {"workload": "mezo", "scope": "adapter", "quantization": "bitsandbytes"}, rise=0.42, still=0.03, seeds=1
    ),
}


@pytest.fixture(scope="module")
def loaded_task(opt_tiny: ModelSource) -> Callable[[str], TaskData]:
    return cache(lambda name: load_task(name, source=opt_tiny))


def train(spec: RunSpec, control: bool, source: ModelSource, task: TaskData) -> tuple[float, float]:
    """The task's score on held-out examples before and after."""
    toss = DenseCoinToss if spec.workload == "mezo" else CoinToss
    executor, workload = EagerExecutor(), toss.from_spec(spec) if control else make_workload(spec)
    executor.load(spec, source, task)

    def score() -> float:
        answers = executor.generate(task.eval) if task.answer_tokens else None
        return judge(task, task.eval, executor.evaluate(task.eval), answers).score

    before, stream = score(), batch_stream(task.train, spec.batch_size, spec.seed)
    for step in range(spec.warmup + spec.steps):
        executor.step(workload, step, next(stream))
    return before, score()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        given = metafunc.config.getoption("--seeds", default=None)
        metafunc.parametrize(("name", "seed"), [(name, s) for name, t in TASKS.items() for s in range(given or t.seeds)])


def test_the_score_rises_by_the_losses_alone(
    name: str, seed: int, opt_tiny: ModelSource, loaded_task: Callable[[str], TaskData]
) -> None:
    learned, named = TASKS[name], name.split()[0]
    task = loaded_task(named)
    spec = replace(complete({"executor": "eager", "device": "cpu", "task": named, **learned.settings}), seed=seed)
    before, after = train(spec, False, opt_tiny, task)
    _, control = train(spec, True, opt_tiny, task)
    print(f"\n{name}, seed {seed}: {before:.3f} -> {after:.3f}, control {control:.3f}")
    assert after >= before + learned.rise
    assert control < before + learned.still
