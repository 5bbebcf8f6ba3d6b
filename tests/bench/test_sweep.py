"""A sweep: what is refused before anything starts, the order of the sessions, going on, and what each axis shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.result import find_results, load_result

FILE = """
model = "none"
executor = "fake"
device = "cpu"
steps = 4
warmup = 1
profile = false
[grid]
batch-size = [1, 4]
rank = [2, 8]
"""


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "grid.toml").write_text(FILE)
    return str(tmp_path / "grid.toml")


@pytest.fixture
def sweep(bench, tmp_path):
    return lambda *arguments: bench("sweep", *arguments, "--results", str(tmp_path / "results"))


def begun(text):
    """Which combination each session was of, in the order of the sessions."""
    titles = [line.split("/")[0] for line in text.splitlines() if "/2:" in line]
    return [title.split(", ", 1)[1].rsplit(" ", 1)[0] for title in titles]


def test_sessions_take_turns_forwards_and_backwards_and_a_second_call_adds_what_is_missing(sweep, grid, tmp_path):
    first = sweep(grid, "--sessions", "2")
    assert first.code == 0, first.err
    order = begun(first.err)
    there = ["batch_size 1, rank 2", "batch_size 1, rank 8", "batch_size 4, rank 2", "batch_size 4, rank 8"]
    assert order == [*there, *reversed(there)]
    before = {path: load_result(path) for path in find_results([tmp_path / "results"])}
    assert len(before) == 4 and {len(result.sessions) for result in before.values()} == {2}
    assert {(r.spec["batch_size"], r.spec["rank"]) for r in before.values()} == {(1, 2), (1, 8), (4, 2), (4, 8)}

    lost = sorted(before)[1]
    lost.unlink()  # its journal has everything
    again = sweep(grid, "--sessions", "3")
    assert again.code == 0 and again.json["pair_id"] == first.json["pair_id"]
    after = {path: load_result(path) for path in find_results([tmp_path / "results"])}
    assert after.keys() == before.keys()
    for path, result in after.items():
        assert len(result.sessions) == 3 and result.sessions[:2] == before[path].sessions
    for axis, picture in again.json["figures"].items():
        assert axis in ("batch_size", "rank") and Path(picture).stat().st_size > 5000


def test_what_a_cell_cannot_honour_is_named_before_anything_starts(sweep, tmp_path):
    outcome = sweep("--grid", "kv=recompute,shared", "--grid", "executor=official,eager", "--model", "opt-tiny")
    assert outcome.code == 2 and not list((tmp_path / "results").rglob("*.json*"))
    assert "1 of 4 combinations cannot run: kv shared, executor official (--kv shared" in outcome.err
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    listed = sweep("--grid", "kv=recompute,shared", "--grid", "executor=official,eager", "--skip-refused", "--dry-run")
    assert listed.code == 0 and not (tmp_path / "results").exists()
    assert [point["refused"] is None for point in listed.json["points"]] == [True, True, False, True]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no axis; give --grid"),
        (["--grid", "sizes=1,2"], "sizes is no axis; choose from workload"),
        (["--grid", "rank=2,many"], "--grid rank=2,many: 'many' does not fit"),
        (["--grid", "rank=2,2"], "--grid rank: a value is there twice"),
        (["--grid", "rank=2,8", "--rank", "4"], "rank: is an axis and set to one value too"),
        (["--grid", "device=auto,cpu"], "are the same run"),
        (["--grid", "column=a,b"], "column is no axis"),
        (["no.toml"], "no.toml: cannot be read"),
    ],
)
def test_bad_grids_exit_2_with_one_line(sweep, arguments, words):
    outcome = sweep(*arguments)
    assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[grid]\nrank = 2", "grid must be a table of lists"),
        ("colour = 1\n[grid]\nrank = [2, 4]", "colour is no setting of a run"),
        ('steps = "many"\n[grid]\nrank = [2, 4]', "steps: 'many' does not fit"),
        ("[grid\n", "not TOML"),
    ],
)
def test_bad_files_exit_2_with_one_line(sweep, tmp_path, text, words):
    (tmp_path / "bad.toml").write_text(text)
    outcome = sweep(str(tmp_path / "bad.toml"))
    assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") == 1


@pytest.mark.usefixtures("opt_tiny")
def test_a_real_sweep_is_more_work_with_more_rows(sweep):
    what = "--executor eager --model opt-tiny --steps 3 --warmup 1 --sessions 1 --eval-every 0 --record counters"
    outcome = sweep(*what.split(), "--grid", "batch_size=2,16")
    assert outcome.code == 0, outcome.err
    small, large = (load_result(point["path"]).sessions[0] for point in outcome.json["points"])
    tokens = [found.findings["counters"]["work"]["tokens_scored"] for found in (small, large)]
    assert tokens[1] > 4 * tokens[0] and json.loads(outcome.out)["status"] == "passed"
