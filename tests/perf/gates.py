"""The gates of the performance suite, as functions that name what is wrong. Counts are exact; time is only ever a ratio."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from counted import measure

BASELINE = Path(__file__).parent / "baseline.json"
NAMES = ("official", "eager", "vllm")
LEAST_RATIO = 2.0
"""official / vllm on the small model, one process, interleaved. Measured on two busy cores: 3.2 to 3.9."""


def count_problems(point: Any, expected: dict[str, int]) -> list[str]:
    """What a step does differently from the committed baseline, and from what the executor itself says."""
    name, found, claimed = point.executor.name, measure(point.executor, point.step), point.work
    problems = [
        f"{name}: {key} is {found[key]}, the baseline has {value}" for key, value in expected.items() if found[key] != value
    ]
    checked = ("forwards", "tokens_scored", "weight_bytes_written", "adapter_bytes_written")
    return problems + [
        f"{name}: {key} is {found[key]}, the executor says {claimed[key]}"
        for key in checked
        if found[key] != claimed[key] and (key != "adapter_bytes_written" or name == "vllm")
    ]


def loss_problems(point: Any, truth: Any) -> list[str]:
    """Losses of the plan that `truth` [n_probes] was computed for."""
    losses = point.executor.score(point.batch, point.workload.plan(point.number))
    error = float((losses - truth).abs().max())
    return [] if error <= 2e-5 else [f"{point.executor.name}: losses are off by {error:.1e}, allowed 2e-05"]


def ratio_problems(slow: Any, fast: Any, rounds: int = 7) -> list[str]:
    """The ratio of the fastest steps: other work on the machine only ever slows one down."""
    pairs = [(_seconds(slow), _seconds(fast)) for _ in range(rounds)]
    found = min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)
    names = f"{slow.executor.name} / {fast.executor.name}"
    return [] if found >= LEAST_RATIO else [f"{names}: step-time ratio {found:.2f}, at least {LEAST_RATIO} expected"]


def _seconds(point: Any) -> float:
    start = time.perf_counter()
    point.step()
    return time.perf_counter() - start
