"""The loaded executors of the performance suite, what it knows of the machine, and its two options."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from gates import BASELINE, NAMES

from baselines.official.absorption import SAMPLED_UPDATES
from bench.api import Clock, Workload
from bench.config import RunSpec
from bench.data import ModelSource, TaskData
from bench.harness.clock import CudaClock, WallClock
from bench.registry import executor_entry, make_executor, make_workload


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-baseline", action="store_true", help="write the counts measured now into tests/perf/baseline.json")
    parser.addoption("--perf-device", choices=["cpu", "cuda"], default="cpu", help="where the timed steps run")


def pytest_configure(config: pytest.Config) -> None:
    if device(config) == "cuda" and not config.getoption("benchmark_only"):
        raise pytest.UsageError("--perf-device cuda: the baseline's counts are a CPU's; add --benchmark-only to time alone")


def device(config: pytest.Config) -> str:
    return config.getoption("--perf-device", default="cpu")  # unknown where the whole of tests/ is run


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = torch.get_num_threads()
    machine_info["device"] = torch.cuda.get_device_name() if device(config) == "cuda" else machine_info["cpu"]["brand_raw"]


def pytest_benchmark_compare_machine_info(machine_info: dict[str, Any], compared_benchmark: dict[str, Any]) -> None:
    """Times of another device are no yardstick: the comparison ends instead of passing or failing by accident."""
    stored = compared_benchmark["machine_info"].get("device")
    if stored != machine_info["device"]:
        pytest.exit(
            f"the stored times are of {stored!r}, this is {machine_info['device']!r}: compare on one device", returncode=1
        )


class Point:
    """A loaded executor and the next step of its run. V is kept throughout: a fold is not part of an ordinary step."""

    def __init__(self, name: str, source: ModelSource, task: TaskData, device: str) -> None:
        fields: dict[str, Any] = dict(workload="lozo", executor=name, model="tiny", weights="random", task="sst2")
        fields |= dict(device=device, dtype="float32" if device == "cpu" else "float16")
        fields |= dict(directions="shared", batch_size=8, interval=10**6, **executor_entry(name).fastest)
        self.spec = RunSpec(**fields)
        self.clock: Clock = CudaClock() if device == "cuda" else WallClock()
        self.workload: Workload = make_workload(self.spec)
        self.batch, self.number = task.train, 0
        self.executor: Any = make_executor(name)
        self.executor.load(self.spec, source, task)
        for _ in range(SAMPLED_UPDATES):  # by then V stands in the slots, a sum is open, and the official loop samples no more
            self.step()

    def step(self) -> torch.Tensor:
        losses = self.executor.step(self.workload, self.number, self.batch)
        self.clock.synchronize()
        self.number += 1
        return losses

    @property
    def work(self) -> dict[str, int]:
        return self.executor.work(self.batch, self.workload.plan(self.number))


@pytest.fixture(scope="session")
def source(tiny_source: Callable[..., ModelSource]) -> ModelSource:
    """Wide enough that its products and its weights take the time, not Python."""
    return tiny_source("opt", hidden_size=512, word_embed_proj_dim=512, ffn_dim=2048, num_attention_heads=8)


@pytest.fixture(scope="session")
def points(source: ModelSource, tiny_task: TaskData, pytestconfig: pytest.Config) -> Iterator[dict[str, Point]]:
    loaded = {name: Point(name, source, tiny_task, device(pytestconfig)) for name in NAMES}
    yield loaded
    for point in loaded.values():
        point.executor.close()


@pytest.fixture(scope="session")
def baseline() -> dict[str, dict[str, int]]:
    return json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
