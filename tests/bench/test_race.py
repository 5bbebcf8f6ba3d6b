"""`race`: a grid of the same size for all, seeds at the best of it, one process for many runs that are as good as fresh ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.api import Inputs
from bench.commands.race.plan import TUNING_SEED, best
from bench.errors import UsageError
from bench.harness import heats
from bench.harness.clock import WallClock
from bench.harness.heats import HeatsJob, run_heats
from bench.harness.session import Job
from bench.raced import read_race, write_race
from bench.result import Evaluation, Result, SessionResult, find_results, load_result
from workloads.reference import reference_losses

FAKE = ("--executor", "fake", "--model", "none", "--device", "cpu", "--workload", "lozo", "--workload", "mezo")
SHORT = ("--until", "accuracy=0.85", "--eval-every", "2", "--steps", "8", "--lr-warmup", "0")
SCRIPT = {"step_s": [0.5], "accuracy": [0.5, 0.6, 0.9, 0.8, 0.7]}


@pytest.fixture
def race(bench, tmp_path):
    """race(...): two algorithms of the fake executor; the dev split gets to the target at the third look."""
    what = tmp_path / "script.json"
    what.write_text(json.dumps(SCRIPT))

    def call(*arguments):
        return bench("race", *FAKE, *SHORT, "--data", str(what), "--results", str(tmp_path / "results"), *arguments)

    return call


def test_everyone_gets_a_grid_of_the_same_size_and_the_same_seeds(race, tmp_path):
    outcome = race("--seeds", "3", "--lr-grid", "1,2", "--eps-grid", "1e-3,1e-2")
    assert outcome.code == 0 and outcome.json["runs"] == outcome.json["of"] == 2 * (4 + 3)
    path = Path(outcome.json["path"])
    found = read_race(path)
    for name in ("lozo", "mezo"):
        own = [heat for heat in found.heats if heat.workload == name]
        tuning, racing = [h for h in own if h.tuning], [h for h in own if not h.tuning]
        assert {(h.learning_rate, h.eps) for h in tuning} == {(r, e) for r in (1e-6, 2e-6) for e in (1e-3, 1e-2)}
        assert all(len(h.marks) == 1 and h.marks[0].step == h.budget for h in tuning)  # judged once, at the end
        assert {h.seed for h in tuning} == {TUNING_SEED} and [h.seed for h in racing] == [0, 1, 2]
        assert all(h.held_out is None for h in tuning) and all(h.held_out is not None for h in racing)
        assert all(h.reached and h.marks[-1].step == h.reached.step for h in racing)
    assert "lozo: races with learning rate" in outcome.err and path.with_suffix(".png").exists()
    results = list(map(load_result, find_results([tmp_path])))
    splits = {r.spec["tuning"]: {e.split for s in r.sessions for e in s.evaluations} for r in results}
    assert splits[True] == {"dev"} and {"dev", "eval"} <= splits[False]  # a tuning run never sees the held-out split
    refuses_damage(path, tmp_path)
    goes_on(race, tmp_path)


def refuses_damage(path, tmp_path):
    text, other = path.read_text(), tmp_path / "other.json"
    for content, words in (
        (text.replace('"seed":0', '"seed":7'), "damaged"),
        (text[:200], "truncated"),
        ("{}", "not a race file"),
    ):
        other.write_text(content)
        with pytest.raises(UsageError, match=words):
            read_race(other)
    whole = read_race(path)
    write_race(replace(whole, command="x"), other)
    assert read_race(other) == replace(whole, command="x")


def goes_on(race, tmp_path):
    """The same command runs nothing that is there; a result that was lost is written again from its journal."""

    def files():
        return {path: path.stat().st_mtime_ns for path in find_results([tmp_path])}

    before = files()
    gone = sorted(before)[0]
    gone.unlink()
    outcome = race("--seeds", "3", "--lr-grid", "1,2", "--eps-grid", "1e-3,1e-2")
    assert outcome.code == 0 and outcome.json["runs"] == 14 and "passed," not in outcome.err
    assert files() == before | {gone: gone.stat().st_mtime_ns}


def test_after_a_crash_the_same_command_goes_on(tmp_path):
    """The process of the runs dies in the steps of each: nothing is closed. Mended, each goes on where it was."""
    what = tmp_path / "script.json"
    command = [sys.executable, "-m", "bench", "race", *FAKE, *SHORT, "--results", str(tmp_path), "--seeds", "2"]
    command += ["--lr-grid", "1", "--eps-grid", "1e-3", "--data", str(what)]

    def call(**fields):
        what.write_text(json.dumps(SCRIPT | fields))
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
        return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr

    code, last, said = call(at={"5": "crash"})
    assert code == 1 and last["status"] == "unfinished"
    assert "SIGSEGV" in said and "the same command goes on" in said and "no point of its grid" in said
    code, last, said = call()
    assert code == 0 and last["status"] == "passed", said
    results = list(map(load_result, find_results([tmp_path])))
    resumed = [r.spec["tuning"] for r in results if r.sessions[0].details.get("resumed_at")]
    assert resumed == [True, True] and all(len(r.sessions) == 1 and r.status == "passed" for r in results)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("--seeds", "1"), "--seeds 1: one seed says nothing about another; give 5 or more"),
        (("--lr-grid", "1,fast"), "--lr-grid 1,fast: must be numbers above 0"),
        (("--eps-grid", "0"), "--eps-grid 0: must be numbers above 0"),
        (("--tuning-steps", "0"), "--tuning-steps 0: must be a whole number"),
        (("--workload", "sgd"), "--workload sgd: not known"),
        (("--until", "f1=0.5"), "the task is judged by accuracy"),
    ],
)
def test_what_cannot_be_raced_is_refused_before_anything_runs(race, tmp_path, typed, words):
    outcome = race(*typed)
    assert outcome.code == 2 and words in outcome.err and not find_results([tmp_path])


def test_without_a_target_or_a_rival_there_is_no_race(bench, tmp_path):
    outcome = bench("race", *FAKE, "--results", str(tmp_path))
    assert outcome.code == 2 and "--until says where the race ends" in outcome.err
    outcome = bench("race", *FAKE[:8], "--until", "accuracy=0.9", "--results", str(tmp_path))
    assert outcome.code == 2 and "a race needs two or more" in outcome.err


def test_the_best_of_a_grid_ends_with_the_lowest_dev_loss():
    def result(name, losses, status="passed"):
        dev = [Evaluation(i, 0.5, 0.0, loss, 10, split="dev") for i, loss in enumerate(losses)]
        return Result(name, "", status, {}, 1, {}, {}, sessions=[SessionResult(0, status, evaluations=dev)])

    was, ends, broken = result("was", [0.2, 0.6]), result("ends", [0.7, 0.5]), result("broken", [0.1], "diverged")
    assert best([was, ends, broken]) is ends
    assert best([broken]) is None


@pytest.mark.parametrize("cell", ["lozo eager", "lozo-m eager", "zo-adam eager", "lozo vllm"])
def test_a_heat_is_as_good_as_a_session_of_its_own(cell, tiny_source, tiny_task, tiny_spec, monkeypatch):
    """The second and third run in a process do what the first did, to the bit, whatever seeds and rates stood between."""
    source = tiny_source("opt")
    workload, executor = cell.split()

    def prepare(spec, index=0):
        def reference(batch, probes, dtype):
            return reference_losses(source, replace(spec, dtype=dtype), batch, probes)

        return Inputs(source, tiny_task, reference, WallClock())

    monkeypatch.setattr(heats, "prepare", prepare)
    one = tiny_spec(workload, executor, steps=9, warmup=1, batch_size=4)
    other = replace(one, seed=5, learning_rate=3 * one.learning_rate, eps=1e-2)
    events = []
    jobs = [Job(spec.to_json(), profile=False) for spec in (one, other, one)]
    run_heats(HeatsJob(list(map(asdict, jobs))), events.append)
    losses = [[], [], []]
    for event in events:
        if event["event"] == "heat" and event["of"]["event"] == "step":
            losses[event["heat"]].append(event["of"]["losses"])
    assert [len(found) for found in losses] == [10, 10, 10]
    assert losses[0] == losses[2] != losses[1]
    details = [event["of"] for event in events if event["event"] == "heat" and event["of"]["event"] == "details"]
    assert details[0].get("folds") == details[2].get("folds")
