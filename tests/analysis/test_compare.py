"""`compare`: what it pairs, what it refuses, what it prints."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.compare import compare
from analysis.rendering import cells, comma_separated, headings, markdown
from analysis.runs import load_runs, size_of
from bench.commands.compare import run_compare
from bench.errors import UsageError


def compared(paths, **options):
    return compare(load_runs(paths), **options)


def row_of(comparison, executor, table=0):
    (row,) = [row for row in comparison.tables[table].rows if row.run.spec["executor"] == executor]
    return row


def test_sessions_that_share_a_pair_id_are_paired(make_result, write):
    paths = write(
        make_result("official", [0.8, 1.0, 1.2], pair_id="p"),
        make_result("vllm", [0.1, 0.125, 0.15], pair_id="p"),
    )
    row = row_of(compared(paths), "vllm")
    assert row.ratio.paired and (row.ratio.value, row.ratio.low, row.ratio.high) == pytest.approx((8.0, 8.0, 8.0))
    assert row.verdict == "8.0x faster"


def test_other_sessions_are_unpaired_and_it_says_so(make_result, write):
    comparison = compared(write(make_result("official", [0.8, 1.0, 1.2]), make_result("vllm", [0.1, 0.125, 0.15])))
    row = row_of(comparison, "vllm")
    assert not row.ratio.paired
    table = comparison.tables[0]
    assert "unpaired" in cells(table, row)[headings(table).index("95 % CI")] and any(
        "unpaired" in note for note in comparison.notes
    )


def test_a_run_against_itself_shows_no_difference(make_result, write):
    (path,) = write(make_result("vllm", [0.5, 0.7, 0.6]))
    assert [row.verdict for row in compared([path, path]).tables[0].rows] == ["reference", "no difference (within 5 %)"]


def test_two_sessions_are_too_few(make_result, write):
    row = row_of(compared(write(make_result("official", [1.0, 1.0]), make_result("eager", [0.5, 0.5]))), "eager")
    assert row.ratio.value == pytest.approx(2.0) and row.verdict == "undecided: about 1 more session"


def test_without_official_the_slowest_is_the_reference_and_named(make_result, write):
    comparison = compared(write(make_result("vllm", [0.5] * 3), make_result("eager", [2.0] * 3)))
    assert comparison.tables[0].reference.spec["executor"] == "eager"
    assert "amortised step of eager" in markdown(comparison)


def test_the_reference_can_be_chosen_and_an_absent_one_is_an_error(make_result, write):
    paths = write(make_result("official", [2.0] * 3), make_result("eager", [1.0] * 3))
    assert row_of(compared(paths, reference="eager"), "official").verdict == "2.0x slower"
    with pytest.raises(UsageError, match="--reference vllm: no timed run of it; there are eager, official"):
        compared(paths, reference="vllm")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "bfloat16"}, "dtype (float32, bfloat16)"),
        ({"batch_size": 8}, "batch_size (16, 8)"),
        ({"model": "opt-350m"}, "model (opt-125m, opt-350m)"),
        ({"data": {"digest": "d2"}}, "data digest (d1, d2)"),
        ({"workload_version": 2}, "workload_version (1, 2)"),
        ({"environment": {"device": "a CPU", "torch": "2.12", "vllm": "0.26.0", "threads": 2}}, "torch (2.11.0, 2.12)"),
        ({"environment": {"device": "a CPU", "torch": "2.11.0", "vllm": "0.26.0", "threads": 4}}, "threads (2, 4)"),
        ({"unit": "block"}, "sample unit (session, block)"),
    ],
)
def test_what_must_be_equal_is_named_when_it_differs(make_result, write, changes, words):
    with pytest.raises(UsageError) as refusal:
        compared(write(make_result("official", [1.0] * 3), make_result("vllm", [0.5] * 3, **changes)))
    assert words in str(refusal.value)


def test_executor_features_loop_and_directions_may_differ(make_result, write):
    comparison = compared(write(make_result("official", [1.0] * 3), make_result("vllm", [0.5] * 3, loop="requests")))
    assert len(comparison.tables) == 1


def test_a_third_run_that_cannot_be_compared_stands_apart_and_the_keys_are_named(make_result, write):
    paths = write(make_result("official", [1.0] * 3), make_result("vllm", [0.5] * 3), make_result("eager", [0.5] * 3, steps=20))
    comparison = compared(paths)
    assert len(comparison.tables) == 2
    assert any("steps (3, 20)" in note for note in comparison.notes)


def test_two_model_runners_are_not_compared(make_result, write):
    paths = write(
        make_result("vllm", [1.0] * 3, model_runner="v1", loop="requests"),
        make_result("vllm", [0.5] * 3, model_runner="v2"),
        make_result("eager", [0.7] * 3),
    )
    verdicts = [row.verdict for row in compared(paths).tables[0].rows]
    assert verdicts == ["reference", "1.4x faster", "not comparable: model runner (v1, v2)"]


def test_incorrect_timings_are_refused(make_result, write):
    wrong = make_result("vllm", [0.1] * 3, status="incorrect")
    row = row_of(compared(write(make_result("official", [1.0] * 3), wrong)), "vllm")
    assert row.summary is None and row.verdict == "refused: its losses are wrong"
    assert row.to_json()["step_s_median"] is None


def test_sessions_that_failed_are_left_out_and_counted(make_result, write):
    run = make_result("vllm", [0.1, 0.1, 0.1, 99.0])
    broken = replace(run.sessions[3], status="timeout", error="still at step 2 after 1 s")
    run = replace(run, status="timeout", sessions=[*run.sessions[:3], broken])
    comparison = compared(write(make_result("official", [1.0] * 3), run))
    assert row_of(comparison, "vllm").ratio.value == pytest.approx(10.0)
    assert "vllm kv=shared: 1 of 4 sessions did not pass and are left out" in comparison.notes


def test_in_a_folder_the_newest_run_of_a_point_counts(make_result, write, tmp_path):
    write(
        make_result("official", [1.0] * 3),
        make_result("vllm", [0.5] * 3, created="20260101T000001Z"),
        make_result("vllm", [0.25] * 3, created="20260101T000002Z"),
        make_result("vllm", [], created="20260101T000003Z", status="failed"),
    )
    comparison = compared([tmp_path])
    assert row_of(comparison, "vllm").ratio.value == 4.0
    assert "2 older or failed runs of the same points are left out; --all shows them" in comparison.notes
    assert any("newer, but failed" in note for note in comparison.notes)
    assert len(compared([tmp_path], every=True).tables[0].rows) == 4


def test_both_ways_of_scoring_on_vllm_have_a_row(make_result, write, tmp_path):
    write(make_result("official", [1.0] * 3), make_result("vllm", [0.5] * 3, kv="recompute"), make_result("vllm", [0.25] * 3))
    text = markdown(compared([tmp_path]))
    assert "| vllm kv=recompute |" in text and "| vllm kv=shared |" in text


def test_the_command_prints_a_table_and_one_line_of_json(make_result, write, tmp_path, capsys):
    write(make_result("official", [1.0] * 3, pair_id="p"), make_result("vllm", [0.5] * 3, pair_id="p"))
    assert run_compare([tmp_path], reference=None, format="table", fail_below=None) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert "2.0x faster" in shown.err
    assert found["status"] == "passed" and found["tables"][0]["rows"][1]["ratio"] == 2.0
    run_compare([tmp_path], reference=None, format="markdown", fail_below=None)
    *text, last = capsys.readouterr().out.splitlines()
    assert text[4].startswith("| executor | features |") and json.loads(last) == found


@pytest.mark.parametrize(("least", "code"), [(1.9, 0), (2.1, 1)])
def test_fail_below_sets_the_exit_code(make_result, write, tmp_path, capsys, least, code):
    write(make_result("official", [1.0] * 3), make_result("vllm", [0.5] * 3))
    assert run_compare([tmp_path], reference=None, format="json", fail_below=least) == code
    shown = capsys.readouterr()
    assert json.loads(shown.out)["status"] == ("failed" if code else "passed")
    assert ("is below 2.1" in shown.err) == bool(code)


def test_fail_below_does_not_pass_on_what_it_could_not_compare(make_result, write, tmp_path, capsys):
    write(make_result("official", [1.0] * 3))
    assert run_compare([tmp_path], reference=None, format="json", fail_below=1.0) == 1
    write(make_result("eager", [0.1] * 3), make_result("vllm", [0.1] * 3, status="incorrect"))
    assert run_compare([tmp_path], reference=None, format="json", fail_below=1.0) == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize("least", [0.0, -1.0, float("nan")])
def test_a_threshold_that_cannot_be_one_is_refused(least):
    with pytest.raises(UsageError, match="--fail-below"):
        run_compare([], reference=None, format="json", fail_below=least)


def test_a_folder_without_results_says_how_to_make_some(tmp_path):
    with pytest.raises(UsageError, match=r"no result files; make some with `python -m bench run`"):
        run_compare([tmp_path], reference=None, format="table", fail_below=None)


def test_models_are_sorted_by_size_not_by_name() -> None:
    names = ["opt-13b", "opt-2.7b", "opt-tiny", "opt-125m", "opt-1.3b", "meta/Llama-3.1-8B"]
    assert sorted(names, key=size_of) == ["opt-tiny", "opt-125m", "opt-1.3b", "opt-2.7b", "meta/Llama-3.1-8B", "opt-13b"]


def test_the_ratio_is_of_amortised_steps_and_the_median_stands_beside_it(make_result, write):
    """Folds of 3.3 s every second step: the mean step of 0.9, 3 and 3.3 s is (1.95 + 3.3) / 2."""
    folding = {"kinds": ["plain", "plain", "fold"], "fold_every": 2}
    comparison = compared(write(make_result("official", [3.0] * 3), make_result("vllm", [3.0] * 3, **folding)))
    row = row_of(comparison, "vllm")
    assert row.summary.amortised == pytest.approx((0.95 * 3 + 1.1 * 3) / 2) and row.summary.median == pytest.approx(3.0)
    assert row.ratio.value == pytest.approx(3 / row.summary.amortised)
    assert cells(comparison.tables[0], row)[3:5] == ("3075", "3000")


def test_a_run_whose_folds_were_not_timed_says_so(make_result, write):
    comparison = compared(write(make_result("official", [3.0] * 3), make_result("vllm", [3.0] * 3, fold_every=50)))
    assert cells(comparison.tables[0], row_of(comparison, "vllm"))[3] == "-"
    assert "folds of the accumulated state are left out, none was timed or recorded: vllm kv=shared" in comparison.notes


def test_tails_are_shown_where_there_are_steps_enough(make_result, write):
    comparison = compared(write(make_result("official", [1.0] * 3), make_result("vllm", [0.5] * 7)))
    official, vllm = (row_of(comparison, name).summary for name in ("official", "vllm"))
    assert official.p95 is None and vllm.p95 == pytest.approx(0.55) and vllm.p99 is None


def test_a_spreadsheet_gets_a_line_a_run(make_result, write):
    comparison = compared(write(make_result("official", [1.0] * 3), make_result("vllm", [0.5] * 3)))
    header, *rows = comma_separated(comparison).splitlines()
    assert header.startswith("workload,model,") and len(rows) == 2 and "2.0x faster" in rows[1]


DAMAGED = {
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "other bytes": lambda text: "\udcff\udcfe",
    "another figure": lambda text: text.replace("0.9", "0.8", 1),
    "foreign": lambda text: '{"name": "a benchmark of somebody else\'s"}',
    "a list": lambda text: "[1, 2]",
    "not JSON": lambda text: text.replace("0.9", "NaN", 1),
    "deep": lambda text: "[" * 100_000,
    "newer": lambda text: text.replace('"schema_version": 2', '"schema_version": 99'),
    "an older part": lambda text: '{"schema_version": 1, "spec": {}}',
}


def test_a_folder_with_files_that_cannot_be_read_is_compared_without_them(make_result, write, tmp_path, capsys):
    paths = write(make_result("official", [3.0, 3.1, 3.2]), make_result("eager", [1.0, 1.1, 1.2]))
    text = json.dumps(json.loads(paths[0].read_text()) | {"checksum": "0" * 16})
    for number, (name, damage) in enumerate(DAMAGED.items()):
        whole = text if name == "another figure" else paths[0].read_text()
        path = paths[0].with_name(f"20260101T0000{number:02}Z_{name.replace(' ', '-')}.json")
        path.write_bytes(damage(whole).encode(errors="surrogateescape"))
    (paths[0].parent / "20260101T000000Z_a-folder.json").mkdir()
    (paths[0].parent / "20260101T000000Z_nowhere.json").symlink_to("nowhere")
    os.mkfifo(paths[0].parent / "20260101T000000Z_a-pipe.json")
    older = next((Path(__file__).parents[2] / "results" / "published" / "h200").glob("*official*.json"))
    shutil.copy(older, paths[0].parent)  # of schema version 1: read, as another machine's

    assert run_compare([tmp_path], reference=None, format="json", fail_below=2.0) == 0
    out, err = capsys.readouterr()
    left_out = json.loads(out)["left_out"]
    assert [line.removeprefix("left out: ") for line in err.splitlines()] == left_out
    assert len(left_out) == len(DAMAGED) + 3 and all(text.count(".json: ") == 1 for text in left_out)
    executors = [[row["executor"] for row in table["rows"]] for table in json.loads(out)["tables"]]
    assert executors == [["official", "eager"], ["official"]]
    for name in DAMAGED:
        assert any(name.replace(" ", "-") in text for text in left_out), name
    with pytest.raises(UsageError, match=r"cut-off\.json: truncated"):
        run_compare([*paths, next(paths[0].parent.glob("*cut-off.json"))], reference=None, format="json", fail_below=None)
    for path in (*paths, paths[0].with_name(older.name)):
        path.unlink()
    with pytest.raises(UsageError, match="no whole result files"):
        run_compare([paths[0].parent], reference=None, format="json", fail_below=None)
