"""The loaded executors of the performance suite, its machine facts, and `--update-baseline`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from gates import BASELINE, NAMES

from bench.api import Workload
from bench.config import RunSpec
from bench.defaults import FEATURES
from bench.harness.steps import core_step
from bench.registry import EXECUTORS, resolve
from workloads.make import make_workload
from workloads.models import ModelSource
from workloads.tasks import TaskData


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-baseline", action="store_true", help="write the counts measured now into tests/perf/baseline.json")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = torch.get_num_threads()
    machine_info["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


class Point:
    """A loaded executor and the next step of its run. V is kept throughout: a fold is not part of an ordinary step."""

    def __init__(self, name: str, source: ModelSource, task: TaskData) -> None:
        fields: dict[str, Any] = dict(
            workload="lozo", executor=name, model="tiny", weights="random", task="sst2", dtype="float32"
        )
        fields |= dict(device="cpu", directions="shared", batch_size=8, interval=10**6, **FEATURES[name])
        self.spec = RunSpec(**fields)
        self.workload: Workload = make_workload(self.spec)
        self.batch, self.number = task.train, 0
        self.executor: Any = resolve(EXECUTORS, "--executor", name)()
        self.executor.load(self.spec, source, task)
        self.step()  # V is written into the slots once, at the first step

    def step(self) -> torch.Tensor:
        losses = core_step(self.executor, self.workload, self.number, self.batch)
        self.number += 1
        return losses

    @property
    def work(self) -> dict[str, int]:
        return self.executor.work(self.batch, self.workload.plan(self.number))


@pytest.fixture(scope="session")
def points(tiny_source: Callable[[str], ModelSource], tiny_task: TaskData) -> Iterator[dict[str, Point]]:
    source = tiny_source("opt")
    loaded = {name: Point(name, source, tiny_task) for name in NAMES}
    yield loaded
    for point in loaded.values():
        point.executor.close()


@pytest.fixture(scope="session")
def baseline() -> dict[str, dict[str, int]]:
    return json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
