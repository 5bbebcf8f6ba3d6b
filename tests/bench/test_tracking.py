"""--log-to with the real libraries, offline: what they hold is what the result file holds."""

from __future__ import annotations

import json
import struct
from statistics import fmean

import pytest

from bench.harness import tracking
from bench.result import load_result

STEADY = 0.02
"""Seconds of the scripted steps that follow no pause."""


@pytest.fixture
def tracked(fake, script, tmp_path, monkeypatch):
    """A run of two sessions with everything a tracker is given; its result and the results folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    data = script(losses=[0.9, 0.7, 0.6], step_s=[0.01, 0.02], accuracy=[0.5, 0.6, 0.75])

    def run(name):
        outcome = fake("--data", data, "--eval-every", "2", "--sessions", "2", "--log-to", name)
        assert outcome.code == 0 and "warning" not in outcome.err, outcome.err
        return load_result(outcome.json["path"]), tmp_path / "results" / name

    return run


def expected(session):
    """(name, step) -> value, straight from the result."""
    found = {("loss", step): fmean(losses) for step, losses in enumerate(session.losses)}
    found |= {("step_s", step): seconds for step, seconds in enumerate([*session.warmup_s, *session.step_s])}
    found |= {("projected_gradient", step): values[0] for step, values in enumerate(session.projected_gradients)}
    found |= {(f"{e.split}/{e.metric}", e.step): e.accuracy for e in session.evaluations}
    return found | {(f"{e.split}/loss", e.step): e.loss for e in session.evaluations}


def test_tensorboard_holds_every_step_of_every_session(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, folder = tracked("tensorboard")
    for session in result.sessions:
        (run,) = folder.glob(f"*_{result.id}_{session.index}")
        events = EventAccumulator(str(run)).Reload()
        held = {(name, e.step): e.value for name in events.Tags()["scalars"] for e in events.Scalars(name)}
        truth = expected(session) | {("amortised_step_s", 0): STEADY}
        assert held == {key: pytest.approx(value, rel=1e-6) for key, value in truth.items()}
        assert events.Tags()["tensors"] == ["specification/text_summary"]


def test_mlflow_holds_every_step_and_the_specification(tracked):
    from mlflow import MlflowClient

    result, folder = tracked("mlflow")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("zo-bench").experiment_id])
    assert len(runs) == 2 and {run.info.status for run in runs} == {"FINISHED"}
    by_index = {int(run.info.run_name.rsplit("_", 1)[1]): run for run in runs}
    for session in result.sessions:
        run = by_index[session.index]
        assert run.data.params["rank"] == str(result.spec["rank"])
        names = {name for name, _ in expected(session)}
        held = {(name, m.step): m.value for name in names for m in client.get_metric_history(run.info.run_id, name)}
        assert held == {key: pytest.approx(value) for key, value in expected(session).items()}
        assert run.data.metrics["amortised_step_s"] == pytest.approx(STEADY)


def records(data):
    """The records of a .wandb file: LevelDB's log format after a header of seven bytes."""
    at, whole = 7, b""
    while at < len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def test_wandb_keeps_every_step_offline(tracked):
    from wandb.proto.wandb_internal_pb2 import Record

    result, folder = tracked("wandb")
    files = sorted(folder.rglob("*.wandb"))
    assert len(files) == 2
    for session, file in zip(result.sessions, files, strict=True):
        held, config = {}, {}
        for data in records(file.read_bytes()):
            record = Record.FromString(data)
            values = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item}
            held |= {(name, values["_step"]): value for name, value in values.items() if not name.startswith("_")}
            if record.HasField("run"):
                assert record.run.project == "zo-bench" and record.run.run_group == result.id
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        assert held == {key: pytest.approx(value) for key, value in expected(session).items()}
        assert config["rank"] == result.spec["rank"]


def test_a_library_that_is_missing_is_said_before_anything_runs(fake, tmp_path, monkeypatch):
    monkeypatch.setitem(tracking.TRACKERS, "wandb", tracking.Tracker("wandb", ("zo_bench_has_no_such_module",), ""))
    outcome = fake("--log-to", "wandb")
    assert outcome.code == 2 and outcome.err == "error: --log-to wandb: its library is not installed; run pip install wandb\n"
    assert not list((tmp_path / "results" / "local").iterdir())
    outcome = fake("--log-to", "excel")
    assert outcome.code == 2 and "--log-to excel: not known; choose one of tensorboard, wandb, mlflow" in outcome.err


def test_a_tracker_that_fails_costs_a_warning_and_no_run(fake, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tensorboard").write_text("a file where the folder should be")
    outcome = fake("--log-to", "tensorboard", "--sessions", "1")
    assert outcome.code == 0 and "--log-to tensorboard: FileExistsError" in outcome.err
    assert load_result(outcome.json["path"]).status == "passed"
