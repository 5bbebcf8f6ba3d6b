"""Points in one process: one that goes wrong costs itself alone, and says why."""

from __future__ import annotations

from typing import Any

import pytest

from bench.errors import UsageError
from bench.harness.blocks import BlocksJob, Points, WrongLosses


def points() -> tuple[Points, list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []
    return Points(BlocksJob([], [], 1, 1), [], said.append, [0, 1, 2]), said


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (WrongLosses("off by one"), "incorrect"),
        (MemoryError("too large"), "out_of_memory"),
        (RuntimeError("no such kernel"), "failed"),
    ],
)
def test_a_point_that_goes_wrong_costs_itself_alone(error: Exception, status: str) -> None:
    each, said = points()
    visited = []

    def work(number: int) -> None:
        visited.append(number)
        if number == 1 and len(visited) == 2:
            raise error

    each.each(work)
    each.each(work, backwards=True)
    assert visited == [0, 1, 2, 2, 0]
    assert [(event["event"], event["point"], event["status"]) for event in said] == [("point_failed", 1, status)]
    assert str(error) in said[0]["error"]


def test_bad_input_ends_all() -> None:
    each, said = points()

    def work(_: int) -> None:
        raise UsageError("--rank 3: no")

    with pytest.raises(UsageError):
        each.each(work)
    assert said == []
