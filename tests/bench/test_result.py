"""Result files: what was written is what is read, and nothing else is taken for a result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from bench import result as module
from bench.config import RunSpec
from bench.errors import UsageError
from bench.journal.store import Store
from bench.result import Check, Evaluation, Result, SessionResult, find_results, load_result, schema

SPEC = RunSpec(
    "lozo", "fake", "none", "random", "sst2", "float32", "cpu", "shared", "paired", "shared", "fused", "requests", data="é.jsonl"
)
SESSION = SessionResult(
    0,
    "passed",
    load_s=1.5,
    warmup_s=[0.2],
    step_s=[0.1, 0.1],
    losses=[[0.7, 0.6]] * 3,
    evaluations=[Evaluation(0, 0.5, 0.1, 0.69, 25)],
    checks=[Check("losses", False, None, 2e-5)],
    findings={"memory": {"version": 1, "peak_bytes": 12}},
)
RESULT = Result("ab12", "20260101T000000Z", "passed", SPEC.to_json(), 1, {"device": "cpu"}, {"commit": None}, sessions=[SESSION])


def test_round_trip(tmp_path):
    path = Store(tmp_path).write(RESULT)
    assert load_result(path) == RESULT
    assert path.name == "20260101T000000Z_lozo_fake_none_ab12.json"


def test_the_committed_schema_is_the_generated_one():
    committed = Path(__file__).parents[2] / "results" / "schema.json"
    assert json.loads(committed.read_text()) == schema(), "run: python -m bench.result > results/schema.json"


def test_a_real_result_fits_the_schema(fake):
    written = json.loads(Path(fake("--sessions", "1", "--eval-every", "2").json["path"]).read_text())
    jsonschema.validate(written, schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written | {"speed": 3}, schema())


def damaged(**changes):
    return json.dumps(RESULT.to_json() | changes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "truncated or not JSON"),
        (json.dumps(RESULT.to_json())[:-20], "truncated or not JSON"),
        ("[1, 2]", "not a result"),
        ("{}", "no schema_version"),
        (damaged(schema_version=99), "newer than 2"),
        (damaged(schema_version="1"), "no schema_version"),
        (damaged(status="great"), "status"),
        (damaged(extra=1), "extra"),
        (damaged(sessions=[{"index": 0}]), "sessions.0.status"),
        (damaged(sessions=[{"index": 0, "status": "passed", "step_s": ["fast"]}]), "sessions.0.step_s.0"),
        (damaged(spec={"workload": "lozo"}), "executor"),
        (damaged(spec=SPEC.to_json() | {"rank": 0}), "--rank 0"),
        (damaged(spec=SPEC.to_json() | {"workload": 5}), "workload"),
        (damaged(sessions=[{"index": 0, "status": "passed", "load_s": float("nan")}]), "NaN"),
        ("[" * 100_000, "not JSON"),
        ("\udcff\udcfe", "not JSON"),
    ],
)
def test_what_is_not_a_result_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "20260101T000000Z_x.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as error:
        load_result(path)
    assert str(path) in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.json: cannot be read"):
        load_result(tmp_path / "gone.json")


def test_an_older_version_is_lifted_step_by_step(tmp_path, monkeypatch):
    def update_to_3(data):
        return data | {"schema_version": 3, "id": data["name"]} | {"name": None}

    def update_to_4(data):
        return {key: value for key, value in data.items() if key != "name"} | {"schema_version": 4}

    monkeypatch.setattr(module, "SCHEMA_VERSION", 4)
    monkeypatch.setattr(module, "UPDATES", {3: update_to_3, 4: update_to_4})
    old = {key: value for key, value in RESULT.to_json().items() if key != "id"} | {"name": "ab12"}
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    assert load_result(path) == replace(RESULT, schema_version=4)


def test_version_1_kept_in_the_details_what_others_read(tmp_path):
    old = RESULT.to_json() | {"schema_version": 1, "status": "failed"}
    del old["spec"]["variant"]
    facts = {"variant": "no graphs", "unit": "block", "diverged": True, "threads": 2, "wall_s": 7.5, "model_runner": "v1"}
    old["sessions"] = [{"index": 0, "status": "failed", "details": facts}]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    found = load_result(path)
    (session,) = found.sessions
    assert (found.status, found.spec["variant"]) == ("diverged", "no graphs")
    assert (session.status, session.unit, session.details) == ("diverged", "block", {"threads": 2})
    assert (session.wall_s, session.model_runner, session.kinds) == (7.5, "v1", [])


def test_every_published_file_is_read():
    paths = find_results([Path(__file__).parents[2] / "results" / "published"])
    assert len(paths) > 30
    assert all(load_result(path).schema_version == module.SCHEMA_VERSION for path in paths)


def test_folders_are_searched_for_results_only(tmp_path):
    path = Store(tmp_path).write(RESULT)
    (tmp_path / "schema.json").write_text("{}")
    (tmp_path / "local" / "trace.json").write_text("{}")
    assert find_results([tmp_path]) == [path]
    assert find_results([path, tmp_path]) == [path]
    with pytest.raises(UsageError, match="no such file"):
        find_results([tmp_path / "gone"])
