"""Tails and rates of a server's rounds, on data whose truth is known."""

import numpy as np
import pytest

from analysis.compare import compare
from analysis.figures import serving
from analysis.metrics import metric
from analysis.report import write_report
from analysis.runs import Run, load_runs
from analysis.serving import served
from analysis.table import tidy
from bench.result import SessionResult

REQUESTS, ROUNDS = 200, 4


def round_of(index, policy, slower, steps, failed=0):
    """Waits whose 99th percentile is 100 ms times the round's own luck, times what the policy adds."""
    waits = (
        np.linspace(0.001, 1.0, REQUESTS)
        * 0.1
        * (1 + 0.2 * index)
        * slower
        / float(np.quantile(np.linspace(0.001, 1, REQUESTS), 0.99))
    )
    found = {"policy": policy, "users_per_s": 4.0, "requests": REQUESTS + failed, "failed": failed, "ttft_s": waits.tolist()}
    found |= {
        "tpot_s": [0.01] * 10,
        "e2e_s": [0.2] * 10,
        "steps": steps,
        "train_s": 10.0,
        "idle_steps_per_s": 5.0,
        "bound_s": 0.1,
    }
    timed = {"step_s": [0.2] * steps, "losses": [[0.7, 0.6]] * steps}
    return SessionResult(index, "passed", "block", findings={"serving": found}, **timed)


@pytest.fixture
def paths(make_result, write):
    from dataclasses import replace

    results = []
    for policy, slower, steps in (("off", 1.0, 0), ("none", 1.5, 40), ("controller", 1.1, 30)):
        result = make_result("vllm", [], pair_id="p1", admission=policy, users_per_s=4.0, loop="requests", id=f"id{policy[:4]}")
        results.append(replace(result, sessions=[round_of(i, policy, slower, steps) for i in range(ROUNDS)]))
    return write(*results)


def test_ratios_are_of_the_tails_paired_by_round(paths):
    (table,) = compare(load_runs(paths), by=metric("ttft")).tables
    rows = {row.run.admission: row for row in table.rows}
    assert rows["off"].verdict == "reference"
    assert rows["none"].ratio.value == pytest.approx(1 / 1.5)
    assert rows["controller"].ratio.value == pytest.approx(1 / 1.1)
    assert rows["controller"].ratio.low == pytest.approx(1 / 1.1)  # paired: the luck of a round is everybody's
    assert rows["none"].summary.steps_per_s == pytest.approx(4.0)
    assert rows["none"].summary.of_idle == pytest.approx(0.8)
    assert rows["off"].summary.within == pytest.approx(
        np.mean([w <= 0.1 for i in range(ROUNDS) for w in round_of(i, "", 1.0, 0).findings["serving"]["ttft_s"]])
    )
    assert "4 users/s" in table.title


def test_requests_that_failed_count_as_late():
    found = served([round_of(0, "none", 0.5, 1, failed=50)])
    assert found is not None
    assert (found.failed, found.within) == (50, REQUESTS / (REQUESTS + 50))


def test_runs_of_a_server_are_never_beside_others_in_a_table_of_steps(paths, make_result, write):
    (other,) = write(make_result("vllm", [1.0, 1.0, 1.0], loop="requests"))
    tables = compare(load_runs([*paths, other])).tables
    assert {len({bool(row.run.admission) for row in table.rows}) for table in tables} == {1}


def test_picture_and_report_are_made_of_them(paths, tmp_path):
    runs: list[Run] = load_runs(paths)
    (axes,) = serving(tidy(runs)).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == ["off", "controller", "none"]
    tail = 100 * (1.0 * 1.2 * 1.4 * 1.6) ** 0.25
    assert lines["none"].get_xdata() == pytest.approx([4.0])
    assert lines["none"].get_ydata() == pytest.approx([1.5 * tail])
    page = write_report(runs, tmp_path / "report", "a command").read_text()
    assert "serving, controller" in page
    assert (tmp_path / "report" / "serving.png").exists()
