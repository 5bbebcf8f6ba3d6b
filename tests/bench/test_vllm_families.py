"""Families on vLLM against the float64 loop: windows, soft caps, scales, fused projections, norms of queries and keys, experts.

An engine takes 3 to 25 s to start, so the three that differ most run here, and all with `--families all` (`make soak`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import EXPERT_FAMILIES, FAMILIES, checkpoint
from prefixes import long_task
from served import Served

from bench.data import ModelSource, TaskData
from bench.errors import UsageError
from bench.executors.vllm.refusals import check_model
from bench.registry import make_workload
from workloads.reference import reference_losses

Make = Callable[..., Any]
FEW = ("gemma2", "phi3, window", "mixtral")
TOLERANCE = 2e-5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("family", FAMILIES if metafunc.config.getoption("--families") == "all" else FEW)


def test_a_family_follows_the_float64_loop(
    family: str, tmp_path: Path, tiny_spec: Make, plain_loop: Make, tiny_task: TaskData
) -> None:
    """Both forms of prompt reuse, answers of one token and of several, then steps; what is refused is refused by name."""
    longer = {key: 128 for key in ("max_position_embeddings", "n_positions") if key in FAMILIES[family]}
    source = ModelSource(family, str(checkpoint(family, tmp_path, **longer)), "pretrained")
    specs = [tiny_spec(workload, "vllm", eps=1e-2) for workload in ("lozo", "factorized")]
    try:
        check_model(specs[0], source)
    except UsageError as refused:
        assert FAMILIES[family]["architectures"][0] in str(refused)
        specs = [tiny_spec("mezo", "vllm", eps=1e-2)]
        if "--lora dense on vllm" not in str(refused):
            return
    long, wide = long_task(), None if family in EXPERT_FAMILIES else torch.float64  # experts' products have no float64
    tasks = (tiny_task, long)
    expected = [
        [reference_losses(source, s, t.train, make_workload(s).plan(0), arithmetic=wide).double() for t in tasks] for s in specs
    ]
    loops = [plain_loop(source, spec) for spec in specs]
    served = Served(source, specs[-1], tiny_spec("mezo", "vllm", scope="lora"), long)
    try:
        for spec, losses, truth in zip(specs, expected, loops, strict=True):
            executor, method = served.by(spec), make_workload(spec)
            for task, right in zip(tasks, losses, strict=True):
                assert right.max() - right.min() > 10 * TOLERANCE
                for kv in ("shared", "recompute"):
                    executor.switch(replace(spec, kv=kv))
                    found = executor.score(task.train, method.plan(0))
                    assert torch.allclose(found.double(), right, rtol=0, atol=TOLERANCE), (spec.workload, kv)
            executor.switch(spec)
            for number in range(0 if wide is None else 5):
                right = truth.step(number, tiny_task.train)
                found = executor.step(method, number, tiny_task.train)
                assert torch.allclose(found.double(), right, rtol=0, atol=TOLERANCE), (spec.workload, number)
            assert wide is None or truth.change_error(executor.parameters()) <= 1e-3
    finally:
        served.executor.close()
