"""Little data: every split has a row, a batch is as large as it says, and what is short is said before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from plain_loop import tiny_spec

from bench.data import ModelSource
from bench.errors import UsageError
from bench.harness.inputs import prepare
from workloads.tasks.load import load_task
from workloads.tasks.task import TaskOptions

SPEC = replace(tiny_spec("lozo", "eager"), model="opt-tiny", weights="pretrained")


def write(path: Path, count: int) -> Path:
    path.write_text("sentence\tlabel\n" + "".join(f"a film {i}\t{i % 2}\n" for i in range(count)))
    return path


@pytest.mark.parametrize("count", [4, 5, 6, 11, 40])
def test_every_split_has_rows_and_no_row_is_lost(count: int, opt_tiny: ModelSource, tmp_path: Path) -> None:
    data = str(write(tmp_path / "rows.tsv", count))
    task = load_task("sst2", source=opt_tiny, options=TaskOptions(data=data))
    sizes = task.summary["examples"]
    assert sizes == {"train": len(task.train), "dev": len(task.dev), "eval": len(task.eval)}
    assert min(sizes.values()) >= 1 and sum(sizes.values()) == count == task.summary["rows_read"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_rows_are_refused(count: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data: too few rows"):
        prepare(replace(SPEC, data=str(write(tmp_path / "rows.tsv", count)), batch_size=1))


def test_a_folder_needs_enough_of_each(opt_tiny: ModelSource, tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", 3)
    write(tmp_path / "validation.tsv", 1)
    sizes = load_task("sst2", source=opt_tiny, options=TaskOptions(data=str(tmp_path))).summary["examples"]
    assert sizes == {"train": 2, "dev": 1, "eval": 1}
    write(tmp_path / "validation.tsv", 0)
    with pytest.raises(UsageError, match=r"validation\.tsv: the file is empty"):
        load_task("sst2", source=opt_tiny, options=TaskOptions(data=str(tmp_path)))


def test_a_batch_larger_than_the_data_is_refused(opt_tiny: ModelSource, tmp_path: Path) -> None:
    spec = replace(SPEC, data=str(write(tmp_path / "rows.tsv", 40)), batch_size=22)
    assert len(prepare(spec).task.train) == 22
    with pytest.raises(UsageError, match=r"--batch-size 23: there are 22 rows to train on \(file rows\.tsv\); lower it"):
        prepare(replace(spec, batch_size=23))


def test_one_label_and_files_left_out_are_said(opt_tiny: ModelSource, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + "a film\tgood\n" * 8)
    write(tmp_path / "test.tsv", 8)
    options = TaskOptions.of({"data": str(tmp_path), "column": ("sentence=text",), "labels": "bad,good"})
    summary = load_task("sst2", source=opt_tiny, options=options).summary
    assert summary["left_out"] == ("test.tsv",)
    assert any("all 8 rows have the label positive" in text for text in summary["warnings"])


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("sst2", {"labels": "bad,good"}, "--labels: it says how to read --data, which is missing"),
        ("sst2", {"column": ("sentence=text",)}, "--column: it says how"),
        ("sst2", {"encoding": "latin-1"}, "--encoding: it says how"),
        ("sst2", {"data": "rows.tsv", "labels": "bad"}, r"--labels bad: the task has 2 labels \(negative, positive\)"),
        ("squad", {"data": "rows.tsv", "labels": "bad,good"}, "--labels bad,good: the task has no labels"),
        ("sst2", {"data": "rows.tsv", "column": ("text=sentence",)}, "--column text=...: the task has no such column"),
    ],
)
def test_options_that_fit_nothing(task: str, given: dict, message: str, opt_tiny: ModelSource, tmp_path: Path) -> None:
    data = {"data": str(write(tmp_path / "rows.tsv", 9))} if "data" in given else {}
    with pytest.raises(UsageError, match=message):
        load_task(task, source=opt_tiny, options=TaskOptions.of(given | data))
