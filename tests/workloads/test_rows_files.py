"""Which files a path stands for: names taken literally, all shards of a split, one kind of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UsageError
from workloads.rows.read import read_tables

COLUMNS = ("sentence", "label")


def write(path: Path, *sentences: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{at % 2}\n" for at, text in enumerate(sentences)))
    return path


def read(path: Path) -> list[str]:
    return [row["sentence"] for row in read_tables(path, COLUMNS).train.rows]


@pytest.mark.parametrize("name", ["x[ab].tsv", "x*.tsv", "x?.tsv", "a::b.tsv", "{x}.tsv", "s3:x.tsv", "ein Film.tsv", "%41.tsv"])
@pytest.mark.parametrize("folder", ["plain", "f[12]", "zip::f"])
def test_no_character_of_a_path_is_a_pattern(folder: str, name: str, tmp_path: Path) -> None:
    for other in ("xa.tsv", "xb.tsv", "A.tsv", "f1/x.tsv"):
        write(tmp_path / folder / other, "another file")
    assert read(write(tmp_path / folder / name, "this one")) == ["this one"]
    write(tmp_path / "f1" / "train.tsv", "another folder")
    write(tmp_path / folder / "train.tsv", "this folder")
    assert read(tmp_path / folder) == ["this folder"]


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00003.tsv", "train-00001-of-00003.tsv", "train-00002-of-00003.tsv"],
        ["train-00001-of-00003.tsv", "train-00002-of-00003.tsv", "train-00003-of-00003.tsv"],
        ["data/train-0.tsv", "data/train-1.tsv", "data/train-2.tsv"],
        ["train/0000.tsv", "train/0001.tsv", "train/0002.tsv"],
        ["data/train/part-1.tsv", "data/train/part-2.tsv", "data/train/part-3.tsv"],
    ],
)
def test_shards_belong_together_in_the_order_of_their_numbers(names: list[str], tmp_path: Path) -> None:
    for name in reversed(names):
        write(tmp_path / name, f"{name} a", f"{name} b")
    assert read(tmp_path) == [f"{name} {letter}" for name in names for letter in "ab"]


def test_the_tenth_shard_comes_after_the_ninth(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"train-{number}.tsv", str(number))
    assert read(tmp_path) == [str(number) for number in range(12)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00002.tsv"], "of 2 shards of its train split, 1 missing"),
        (["train-00001-of-00002.tsv"], "0 missing"),
        (["train-0.tsv", "train-2.tsv"], "of 3 shards of its train split, 1 missing"),
        (["train-00000-of-00002.tsv", "train-00001-of-00003.tsv"], "several files could be its train split"),
        (["train.tsv", "train.csv"], "several files could be its train split: 'train.csv', 'train.tsv'"),
        (["train.tsv", "train.tsv.gz"], "'train.tsv', 'train.tsv.gz'"),
        (["train.tsv", "TRAIN.tsv"], "several files"),
        (["train.tsv", "data/train.tsv"], "'data/train.tsv', 'train.tsv'"),
        (["train.tsv", "train-old.tsv"], "several files"),
        (["train-2023.tsv", "train-2024.tsv"], "several files"),
        (["train-0.tsv", "train-99999999999999.tsv"], "1, 2, 3, 4, 5 missing"),
        (["train.tsv", "dev.tsv", "validation.tsv"], "several files could be its validation split"),
        (["validation.tsv"], "no train file"),
        (["a.tsv", "b.tsv"], "no train file"),
        (["mnli/train.tsv", "sst2/train.tsv"], "it holds the folders mnli, sst2: give one of them"),
        ([], "no train file"),
    ],
)
def test_a_split_that_is_not_one_whole_is_refused(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        write(tmp_path / name, "a")
    with pytest.raises(UsageError, match=message):
        read_tables(tmp_path, COLUMNS)


@pytest.mark.parametrize("name", ["validation", "dev", "val", "valid", "sst2-dev", "eval"])
def test_the_names_that_people_give_a_validation_split(name: str, tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "a")
    write(tmp_path / f"{name}.tsv", "b")
    write(tmp_path / "test.tsv", "no label is read here")
    write(tmp_path / "notes.tsv", "nor here")
    (tmp_path / "dataset_info.json").write_text("{}")
    found = read_tables(tmp_path, COLUMNS)
    assert found.validation is not None and [row["sentence"] for row in found.validation.rows] == ["b"]
    assert found.left_out == ("notes.tsv", "test.tsv")


def test_a_folder_of_one_file_without_a_split_in_its_name(tmp_path: Path) -> None:
    write(tmp_path / "reviews.tsv", "a")
    assert read(tmp_path) == ["a"]


def test_one_shard_given_by_itself_is_read_and_said(tmp_path: Path) -> None:
    shard = write(tmp_path / "train-00000-of-00002.tsv", "a")
    assert "one of 2 shards" in read_tables(shard, COLUMNS).warnings[0]


def test_a_folder_that_holds_itself(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "a")
    (tmp_path / "data").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="several files"):
        read_tables(tmp_path, COLUMNS)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.tsv", "no such file or folder; give a file"),
        ("x" * 300 + ".tsv", "cannot be read: File name too long"),
        ("a\0b.tsv", "no such file"),
        ("/dev/null", "neither a file nor a folder"),
        ("notes.txt", "unknown kind of file '.txt'; use .parquet"),
        ("rows.tsv.gz.gz", "unknown kind of file"),
    ],
)
def test_what_is_no_file_of_rows(path: str, message: str, tmp_path: Path) -> None:
    for name in ("notes.txt", "rows.tsv.gz.gz"):
        write(tmp_path / name, "a")
    with pytest.raises(UsageError, match=message):
        read_tables(tmp_path / path, COLUMNS)
