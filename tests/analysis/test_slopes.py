"""Slopes of runs that differ by their arithmetic alone, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.runs import Run
from analysis.slopes import compared, markdown
from bench.errors import UsageError


def still(run: Run, slopes: list[float], **changes: object) -> Run:
    """The run as if it had measured these slopes, with another spec."""
    session = replace(run.result.sessions[0], projected_gradients=[[slope] for slope in slopes])
    return Run(run.path, replace(run.result, spec=run.spec | {"learning_rate": 0.0} | changes, sessions=[session]))


def test_noise_signs_and_correlation(make_result):
    run = Run(Path("run.json"), make_result("eager", [1.0]))
    wide, half = still(run, [3.0, -4.0], dtype="float32"), still(run, [3.0, -4.0], dtype="float16")
    fp8 = still(run, [3.0, 4.0], dtype="float16", quantization="fp8")
    other = still(run, [1.0, 1.0], dtype="float16", eps=0.5)
    exact, rounded = compared([fp8, half, other, wide])
    assert (exact.reference, exact.run, exact.noise, exact.signs, exact.correlation) == (wide, half, 0, 1, pytest.approx(1))
    assert rounded.reference is wide and rounded.run is fp8 and rounded.count == 2
    assert rounded.noise == pytest.approx(8 / 5) and rounded.signs == 0.5 and rounded.correlation == pytest.approx((9 - 16) / 25)
    assert "| eager fp8, float16 | 2 | 160.0% | 50% | -0.2800 |" in markdown([rounded])


def test_what_there_is_nothing_to_compare_in(make_result):
    run = Run(Path("run.json"), make_result("eager", [1.0]))
    with pytest.raises(UsageError, match="no run stood still"):
        compared([run])
    with pytest.raises(UsageError, match="no two runs differ by their arithmetic alone"):
        compared([still(run, [1.0]), still(run, [2.0], eps=0.5)])
