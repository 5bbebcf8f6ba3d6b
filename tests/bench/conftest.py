"""Running the command line as a user does: arguments in; exit code, last JSON line and stderr out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--families", choices=("few", "all"), default="few", help="which families of models run on vLLM")
    parser.addoption("--seeds", type=int, help="with how many seeds learning is tested; docs/results.md reports five")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def bench(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """bench("run", "--steps", "3"): the command line in this process, its results under tmp_path/results."""

    def call(*arguments: str) -> Outcome:
        where = ["--results", str(tmp_path / "results")] if "run" in arguments and "--results" not in arguments else []
        capfd.readouterr()
        code = main([*arguments, *where])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture
def fake(bench: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """`run` on the fake executor: no model, no profiled pass, short."""

    def call(*arguments: str) -> Outcome:
        fixed = ("--executor", "fake", "--model", "none", "--device", "cpu", "--no-profile", "--warmup", "2", "--steps", "4")
        return bench("run", *fixed, *arguments)

    return call
