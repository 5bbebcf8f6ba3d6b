"""What an axis of a sweep shows, from results whose truth is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy import stats

from analysis.runs import Run
from analysis.sweep import along, draw_axis


def test_an_axis_compares_within_lines_of_otherwise_equal_settings(make_result, tmp_path):
    """Two lines with planted times; interval and ratio by hand."""
    seconds = {(1, 2): [0.1, 0.11, 0.09], (1, 8): [0.2, 0.21, 0.19]}
    seconds |= {(4, 2): [0.4, 0.44, 0.36], (4, 8): [0.5, 0.5, 0.52]}
    points = [
        (
            {"batch_size": size, "rank": rank},
            Run(Path(f"{size}{rank}"), make_result("eager", times, pair_id="p", batch_size=size)),
        )
        for (size, rank), times in seconds.items()
    ]
    rows = along("batch_size", points)
    assert [(row.beside["rank"], row.value) for row in rows] == [(2, 1), (2, 4), (8, 1), (8, 4)]
    assert rows[0].ratio is None and rows[1].ratio.value == pytest.approx(0.25)
    logs = [math.log(value) for value in seconds[1, 8]]
    mean, half = sum(logs) / 3, stats.t.ppf(0.975, 2) * stats.sem(logs)
    found = rows[2].seconds
    assert [math.log(x) for x in (found.value, found.low, found.high)] == pytest.approx([mean, mean - half, mean + half])
    draw_axis("batch_size", rows, tmp_path / "axis.png")
    assert (tmp_path / "axis.png").stat().st_size > 5000


def test_a_point_that_failed_is_shown_as_not_timed(make_result, tmp_path):
    failed = make_result("eager", [], status="failed")
    points = [({"rank": 2}, Run(Path("a"), failed)), ({"rank": 4}, Run(Path("b"), make_result("eager", [0.1], rank=4)))]
    rows = along("rank", points)
    assert [row.seconds is None for row in rows] == [True, False] and rows[1].ratio is None
    draw_axis("rank", rows, tmp_path / "axis.png")
