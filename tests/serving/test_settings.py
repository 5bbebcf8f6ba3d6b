"""What `serve` refuses before anything is loaded, in one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.commands.serve_bench import plan_of

REFUSED = [
    (("--host", "0.0.0.0"), "ZO_BENCH_TOKEN"),
    (("--port", "70000"), "65535"),
    (("--policy", "greedy"), "none, fixed, idle-only, controller"),
    (("--slo", "fast"), "ttft_p99=+15%"),
    (("--versions", "1"), "at least 2"),
    (("--publish-if", "worse"), "better, always"),
    (("--slot-rank", "4"), "6 to 512"),
    (("--workload", "mezo"), "fits in no adapter"),
    (("--workload", "lozo-m"), "running means"),
    (("--lr-schedule", "linear"), "--steps"),
    (("--state", "/proc/nothing"), "--state /proc/nothing"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_what_cannot_be_served_exits_2(
    options: tuple[str, ...], said: str, refused: Callable[..., str], opt_tiny: Any, tmp_path: Path
) -> None:
    state = () if "--state" in options else ("--state", str(tmp_path / "state"))
    assert said in refused("serve", *options, *state)
    assert not (tmp_path / "state").exists()


BENCH_REFUSED = [
    (("--rates", "4,x"), "--rates 4,x"),
    (("--rates", "4,-1"), "above 0"),
    (("--policies", "off,greedy"), "--policies greedy"),
    (("--rounds", "0"), "at least 1"),
    (("--trace", "/no/trace"), "--trace /no/trace"),
    (("--slo", "x"), "ttft_p99=+15%"),
    (("--workload", "mezo"), "fits in no adapter"),
]


@pytest.mark.parametrize(
    ("options", "said"), BENCH_REFUSED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_what_cannot_be_measured_exits_2(
    options: tuple[str, ...], said: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    assert said in refused("serve-bench", *options, "--results", str(tmp_path / "results"))


def test_a_stretch_asks_for_what_comes_in_its_time_and_no_more_than_a_trace_has(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0}\n' * 30 + "\n")
    for path, rates in ((None, {2.0: 20, 100.0: 1000, 0.01: 2}), (str(trace), {2.0: 20, 100.0: 30})):
        plan = plan_of("4", None, 1, 10.0, 100.0, (24, 16, path))
        assert {rate: plan.requests(rate) for rate in rates} == rates
