"""`compare --metric time-to-target`: what is a run's time to it, and what is not mixed."""

from dataclasses import replace

import pytest

from analysis.compare import compare
from analysis.metrics import metric
from analysis.rendering import cells
from analysis.runs import load_runs
from bench.errors import UsageError
from bench.result import Reached


def to_target(make_result, workload, seconds, **changes):
    """A run that needs these seconds in its sessions to get to an accuracy of 0.9."""
    spec = {"until": "accuracy=0.9", "eval_every": 5, "pair_id": "p", "id": workload}
    run = make_result("eager", [1.0] * len(seconds), workload=workload, **spec, **changes)
    got = [Reached(20, s, 40) if s else None for s in seconds]
    return replace(run, sessions=[replace(session, reached=r) for session, r in zip(run.sessions, got, strict=True)])


def test_algorithms_are_compared_by_the_time_to_a_target(make_result, write):
    paths = write(
        to_target(make_result, "lozo", [10.0, 11.0, 9.0], learning_rate=1e-6),
        to_target(make_result, "factorized", [5.0, 5.5, 4.5], learning_rate=1e-5, rank=128),
        to_target(make_result, "mezo", [5.0, 6.0, None]),
    )
    comparison = compare(load_runs(paths), reference="lozo", by=metric("time-to-target"))
    found = {cells(comparison.tables[0], row)[0]: row.verdict for row in comparison.tables[0].rows}
    assert found["lozo, eager"] == "reference" and found["factorized, eager"] == "2.0x faster"
    assert found["mezo, eager"] == "passed: the target was not reached in every session"


def test_other_targets_or_data_are_not_mixed(make_result, write):
    paths = write(
        to_target(make_result, "lozo", [10.0, 11.0, 9.0]),
        replace(to_target(make_result, "factorized", [5.0, 5.5, 4.5]), data={"digest": "d2"}),
    )
    with pytest.raises(UsageError, match="data digest"):
        compare(load_runs(paths), by=metric("time-to-target"))


def test_runs_that_a_race_tuned_by_are_left_out(make_result, write):
    race = [to_target(make_result, name, [seconds]) for name, seconds in (("lozo", 10.0), ("mezo", 5.0))]
    tuned = replace(to_target(make_result, "mezo", [1.0], tuning=True, learning_rate=1e-5, seed=1000), id="tuned")
    folder = write(*race, tuned)[0].parent
    comparison = compare(load_runs([folder]), by=metric("time-to-target"))
    assert [len(table.rows) for table in comparison.tables] == [2]
    assert "1 runs that a race picked its settings by are left out" in " ".join(comparison.notes)
    assert len(compare(load_runs([folder]), by=metric("time-to-target"), every=True).tables) == 2


def test_an_unknown_metric_lists_the_known():
    with pytest.raises(UsageError, match="--metric joules: not known; choose one of step, time-to-target"):
        metric("joules")
