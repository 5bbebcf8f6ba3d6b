"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES
from hypothesis import HealthCheck, settings

from bench.config import RunSpec
from bench.data import Example, ModelSource, TaskData
from bench.registry import make_executor

for profile, examples in (("ci", 160), ("soak", 1600)):  # `--hypothesis-profile soak`: as `make soak` does
    settings.register_profile(profile, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny models gain nothing from more


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelSource]:
    """A two-layer model of a family with seeded random weights: tiny_source("opt", other=sizes)."""

    def make(family: str, **sizes: Any) -> ModelSource:
        folder = tmp_path_factory.mktemp("model")
        (folder / "config.json").write_text(json.dumps(FAMILIES[family] | sizes))
        return ModelSource(f"tiny-{family}", str(folder), "random")

    return make


@pytest.fixture(scope="session")
def tiny_task() -> TaskData:
    """Eight ragged prompts of random ids with two one-token options."""
    draw = random.Random(0)
    examples = tuple(
        Example((0, *(draw.randrange(10, 300) for _ in range(draw.randrange(3, 30)))), ((7,), (9,)), draw.randrange(2))
        for _ in range(8)
    )
    return TaskData(examples, (), examples, "test", 1, 31, True, {})


@pytest.fixture(scope="session")
def opt_tiny() -> ModelSource:
    """The built-in model, pre-trained once per cache."""
    from workloads.models.table import resolve_model

    return resolve_model("opt-tiny", "auto")


@pytest.fixture
def run_kernels() -> Callable[..., None]:
    """run_kernels(program, *arguments): a program that launches Triton kernels, in a process of its own. Its first argument is
    the device: a GPU where there is one, or else the CPU and Triton's interpreter."""

    import torch

    found = "cuda" if torch.cuda.is_available() else "cpu"

    def run(program: str, *arguments: str, device: str = found) -> None:
        interpreted = {"TRITON_INTERPRET": "1"} if device == "cpu" else {}
        found_here = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        environment = os.environ | {"TORCHDYNAMO_DISABLE": "1"} | found_here | interpreted
        command = [sys.executable, "-c", program, device, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    return run


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Writes a script for the fake executor and returns its path."""

    def write(**fields: Any) -> str:
        path = tmp_path / f"script{len(list(tmp_path.glob('script*')))}.json"
        path.write_text(json.dumps(fields))
        return str(path)

    return write


@pytest.fixture(scope="session")
def plain_loop() -> Callable[..., Any]:
    """plain_loop(source, spec): the float64 loop of what the spec trains."""
    from plain_adapter import AdapterLoop
    from plain_loop import PlainLoop

    return lambda source, spec: (AdapterLoop if spec.scope == "adapter" else PlainLoop)(source, spec)


@pytest.fixture(scope="session")
def tiny_spec() -> Callable[..., RunSpec]:
    from plain_loop import tiny_spec

    return tiny_spec


@pytest.fixture(scope="session")
def loaded() -> Callable[..., Any]:
    """loaded(spec, source, task): the spec's executor with its model."""

    def load(spec: RunSpec, source: ModelSource, task: object) -> Any:
        executor = make_executor(spec.executor)
        executor.load(spec, source, task)
        return executor

    return load
