"""Points in one process: one that goes wrong costs itself alone, and says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.config import RunSpec
from bench.errors import UsageError
from bench.executors.fake.executor import FakeExecutor
from bench.harness.blocks import SETTLING, BlocksJob, Points, WrongLosses, run_blocks
from bench.harness.points import Point
from bench.result import Result

SPEC = RunSpec(
    **dict(workload="lozo", executor="fake", model="none", weights="random", task="sst2", dtype="float32", device="cpu"),
    **dict(directions="shared", batching="paired", kv="shared", lora="fused", loop="requests", batch_size=4),
)
POINTS = [("shared", "paired"), ("recompute", "paired"), ("shared", "sequential")]


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


def test_rounds_go_forwards_and_backwards_and_all_points_of_a_round_get_the_same_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [(0, replace(SPEC, kv=kv, batching=batching).to_json()) for kv, batching in POINTS]
    given: list[tuple[str, Any]] = []
    score = FakeExecutor.score

    def noting(self: FakeExecutor, batch: Any, probes: Any) -> Any:
        given.append((self.point, batch))
        return score(self, batch, probes)

    def switch(self: FakeExecutor, to: RunSpec) -> None:
        self.point = f"{to.kv} {to.batching}"

    monkeypatch.setattr(FakeExecutor, "score", noting)
    monkeypatch.setattr(FakeExecutor, "switch", switch)
    events: list[dict[str, Any]] = []
    run_blocks(BlocksJob([SPEC.to_json()], points, rounds=3, steps=2, profile=False), events.append)
    blocks = [(event["round"], event["point"]) for event in events if event["event"] == "block"]
    assert blocks == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0), (2, 0), (2, 1), (2, 2)]
    steps = given[len(points) :]  # each point was checked first
    each = SETTLING + 2
    seen = [[batch for _, batch in steps[at : at + each]] for at in range(0, len(steps), each)]
    assert seen[0] == seen[1] == seen[2] and seen[3] == seen[4] == seen[5] and seen[6] == seen[7] == seen[8]
    assert seen[0] != seen[3]


@pytest.mark.parametrize(
    ("interval", "kinds"), [(50, ["plain"] * 4 + ["fold"]), (4, ["plain", "plain", "fold", "plain", "fold"])]
)
def test_a_block_measures_plain_steps_and_a_fold_however_long_the_interval(
    monkeypatch: pytest.MonkeyPatch, interval: int, kinds: list[str]
) -> None:
    monkeypatch.setattr(FakeExecutor, "work", lambda *_: {"fold_bytes_written": 1, "forwards": 1})
    spec = replace(SPEC, interval=interval).to_json()
    events: list[dict[str, Any]] = []
    run_blocks(BlocksJob([spec], [(0, spec)], rounds=2, steps=4, profile=False), events.append)
    blocks = [event for event in events if event["event"] == "block"]
    assert [block["kinds"] for block in blocks] == [kinds, kinds]
    assert all(block["fold_every"] == interval and len(block["step_s"]) == 5 for block in blocks)


def test_where_nothing_folds_no_step_is_added() -> None:
    events: list[dict[str, Any]] = []
    run_blocks(BlocksJob([SPEC.to_json()], [(0, SPEC.to_json())], rounds=1, steps=4, profile=False), events.append)
    (block,) = [event for event in events if event["event"] == "block"]
    assert block["kinds"] == ["plain"] * 4 and block["fold_every"] is None


def test_a_point_keeps_every_warning_once_and_its_blocks_have_them() -> None:
    spec = RunSpec(
        **dict(workload="lozo", executor="fake", model="none", weights="random", task="sst2", dtype="float32", device="cpu"),
        **dict(directions="shared", batching="paired", kv="shared", lora="fused", loop="requests"),
    )
    point = Point(0, spec, Result("ab12", "now", "passed", spec.to_json(), 1, {}, {}))
    warning = {"event": "point_warning", "text": "the check is blunt"}
    point.take(warning, 1)
    point.take(warning, 1)
    seen = {"step_s": [0.1], "kinds": ["plain"], "fold_every": None, "losses": [[0.7, 0.7]]}
    point.take({"event": "block", "round": 0, "details": {}, **seen}, 1)
    assert point.result.sessions[0].warnings == ["the check is blunt"]
    point.take({"event": "point_warning", "text": "no energy"}, 1)
    assert point.result.sessions[0].warnings == ["the check is blunt", "no energy"]
