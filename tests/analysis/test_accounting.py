"""Which part of the step the time saved was spent in, from profiles whose truth is known."""

from dataclasses import replace

import pytest

from analysis.accounting import THEIRS, accounts
from analysis.runs import load_runs


def profiled(result, span, phases, idle):
    buckets = {phase: {"wall_s": None, "buckets": {"gemm": 0.75 * s, "memcpy": 0.25 * s}} for phase, s in phases.items()}
    findings = {"time_breakdown": {"span_s": span, "phases": buckets, "idle_s": idle, "buckets": {}}}
    return replace(result, sessions=[*result.sessions[:-1], replace(result.sessions[-1], findings=findings)])


@pytest.fixture
def results(make_result):
    block = dict(unit="block", pair_id="p", directions="shared")
    official = make_result("official", [10.0] * 3, **block)
    vllm = make_result("vllm", [2.0] * 3, kv="recompute", **block)
    return [
        profiled(official, 10.0, {"perturb": 3.0, "score": 4.0, "update": 2.0, "host": 0.25, "none": 0.25}, 0.5),
        profiled(vllm, 2.0, {"perturb": 0.25, "score": 1.0, "update": 0.25}, 0.5),
    ]


def test_the_time_saved_by_phase(results, write):
    (found,) = accounts(load_runs(write(*results)))
    truth = {"probe and forward": 5.75 / 8, "update": 1.75 / 8, "other": 0.5 / 8, "idle": 0.0}
    assert found.saved("recompute") == pytest.approx(truth)
    (line,) = found.lines
    assert "kv=recompute" in line and "probe and forward 71.9%, update 21.9%" in line


def test_without_profiles_or_without_a_saving_nothing_is_said(results, write):
    bare = [replace(r, sessions=[replace(s, findings={}) for s in r.sessions]) for r in results]
    assert accounts(load_runs(write(*bare))) == []
    slower = profiled(results[1], 12.0, {"score": 12.0}, 0.0)
    assert accounts(load_runs(write(results[0], slower))) == []


def test_the_authors_accounting_stands_beside_ours():
    assert THEIRS.endswith("probe and forward 89.34%, update 5.74%, other 4.92%") and "June 2026" in THEIRS
