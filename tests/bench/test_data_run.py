"""`run --data` as a user sees it: one line on what is read and used, warnings at once, or one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.result import find_results, load_result

SHORT = ("--executor", "eager", "--device", "cpu", "--no-profile", "--steps", "1", "--warmup", "0", "--eval-every", "0")


def test_a_run_says_what_it_read_and_used_and_its_result_holds_it(bench, tmp_path: Path) -> None:
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / "train[1].csv").write_text("text,label\n" + "".join(f"a film {i},good\n" for i in range(60)))
    (tmp_path / "reviews" / "test.csv").write_text("text,label\na film,-1\n")
    said = bench(
        "run", *SHORT, "--data", str(tmp_path / "reviews"), "--column", "sentence=text", "--labels", "bad,good", "--sessions", "2"
    )
    assert said.code == 0
    used = "60 rows read, 32 to train on, 16 for dev, 12 for evaluation"
    line = f"data: sst2, file reviews: {used}; tokenizer: own; not read: test.csv"
    lines = said.err.splitlines()
    assert lines.count(line) == 1  # of both sessions together
    assert sum("all 60 rows have the label positive" in text for text in lines) == 1
    (path,) = find_results([tmp_path / "results"])
    data = load_result(path).data
    assert data["rows_read"] == 60 and data["examples"] == {"train": 32, "dev": 16, "eval": 12}
    assert data["left_out"] == ["test.csv"] and data["truncated"] == {"train": 0, "dev": 0, "eval": 0}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "sentence,label\na film, of note,1\n", "row 1 (line 2): 3 fields, but the header names 2"),
        ("rows.tsv", "sentence\tlabel\n" + "a film\t1\n" * 20, "--batch-size 16: there are 11 rows to train on"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing_behind(bench, name, content, said, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    outcome = bench("run", *SHORT, "--data", str(tmp_path / name))
    assert outcome.code == 2 and said in outcome.err and not outcome.out
    assert "Traceback" not in outcome.err and not list((tmp_path / "results").rglob("*.json*"))
