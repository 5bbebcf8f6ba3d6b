"""SST-2's protocol: template, split, lengths; files that are right, and files that are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.data import ModelSource
from bench.errors import UsageError
from workloads import generated
from workloads.models import tiny
from workloads.tasks.load import load_task
from workloads.tasks.published.sst2 import SST2
from workloads.tasks.task import TaskOptions, TaskRows

GOOD = [{"sentence": f"a fine film {i} ", "label": i % 2} for i in range(20)]


def read(path: Path | None, seed: int = 0, *, offline: bool = False) -> TaskRows:
    return SST2().read(TaskOptions(data=str(path) if path else None, data_seed=seed), offline=offline)


def write(folder: Path, kind: str, rows: list[dict]) -> Path:
    path, frame = folder / f"rows.{kind}", pd.DataFrame(rows)
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t" if kind == "tsv" else ",", index=False)
    return path


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "tsv"])
def test_every_kind_of_file_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    rows = read(write(tmp_path, kind, GOOD))
    assert sorted([*rows.train, *rows.dev, *rows.eval], key=lambda row: row["sentence"]) == sorted(
        GOOD, key=lambda row: row["sentence"]
    )
    assert rows.origin == f"file rows.{kind}" and rows.read == 20


def test_the_split_is_upstreams(tmp_path: Path) -> None:
    rows = [{"sentence": f"s{i}", "label": i % 2} for i in range(2000)]
    write(tmp_path, "csv", rows).rename(tmp_path / "train.csv")
    write(tmp_path, "csv", GOOD).rename(tmp_path / "validation.csv")
    found = read(tmp_path, 7)
    order = np.random.RandomState(7).permutation(2000)
    assert [row["sentence"] for row in found.train] == [f"s{i}" for i in order[:1000]]
    assert [row["sentence"] for row in found.dev] == [f"s{i}" for i in order[1000:1500]]
    assert len(found.eval) == 20


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": 1}], "no column 'sentence'; found 'text', 'label'"),
        ([{"sentence": "a"}], "no column 'label'"),
        ([{"sentence": "a", "label": 2}], "row 1: label 2; expected 0"),
        ([{"sentence": "a", "label": "good"}], "row 1: label 'good'"),
        ([{"sentence": "  ", "label": 1}], "row 1: the sentence is empty"),
    ],
)
def test_wrong_rows_are_named(rows: list[dict], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read(write(tmp_path, "jsonl", rows))


def test_missing_empty_and_unknown_files(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.tsv").write_text("sentence\tlabel\n")
    (tmp_path / "notes.txt").write_text("x")
    for name, message in [
        ("none.csv", "no such file"),
        ("header.tsv", "is empty"),
        ("empty.csv", "is empty"),
        ("notes.txt", "unknown kind"),
        ("", "no train"),
    ]:
        with pytest.raises(UsageError, match=message):
            read(tmp_path / name)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json", "csv", "tsv"])
@given(
    content=st.binary(max_size=200)
    | st.lists(st.dictionaries(st.text(), st.text() | st.integers())).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_gives_anything_but_rows_or_one_clear_line(kind: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"fuzz.{kind}"
    path.write_bytes(content)
    try:
        rows = read(path)
    except UsageError as error:
        assert str(error).startswith("--data") and "\n" not in str(error)
    else:
        assert all(row["sentence"].strip() and row["label"] in (0, 1) for row in [*rows.train, *rows.dev, *rows.eval])


def test_generated_lengths_follow_the_model() -> None:
    def words(lengths: generated.Lengths) -> np.ndarray:
        return np.array([len(text.split()) for text, _ in generated.sentences(4000, lengths, generated.TASK, 0)])

    train, held_out = words(generated.TRAIN), words(generated.EVAL)
    assert np.median(train) == 7 and train.mean() == pytest.approx(9.4, rel=0.05) and train.min() >= 1 and train.max() <= 52
    assert held_out.mean() == pytest.approx(19.5, rel=0.05) and held_out.std() == pytest.approx(8.7, rel=0.08)
    assert held_out.min() >= 2 and held_out.max() <= 47


def test_generated_labels_can_be_read_from_the_words() -> None:
    """Every sentence starts with an adjective of its label, and the classes are balanced."""
    rows = generated.sentences(1000, generated.EVAL, generated.TASK, 1)
    polar = set(generated.POSITIVE + generated.NEGATIVE)
    first = [next(word for word in text.split() if word in polar) in generated.POSITIVE for text, _ in rows]
    assert first == [bool(label) for _, label in rows]
    assert 450 < sum(label for _, label in rows) < 550


KINDS = {"A": generated.POSITIVE + generated.NEGATIVE, "N": generated.NOUNS, "V": generated.ADVERBS, "F": generated.FILLERS}
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}


def test_pre_training_and_the_task_share_no_skeleton() -> None:
    """A skeleton: a sentence with its adjectives, nouns, adverbs and fillers replaced by their kinds."""

    def skeletons(rows: list[tuple[str, int]]) -> set[str]:
        return {" ".join(KIND_OF.get(word, word) for word in text.split()) for text, _ in rows}

    known = skeletons(tiny._corpus())
    found = read(None, offline=True)
    assert found.origin == "generated" and len(known) > 1000
    for rows in (found.train, found.dev, found.eval):
        assert not skeletons([(row["sentence"], row["label"]) for row in rows]) & known


def test_the_task_of_a_model_without_a_tokenizer(opt_tiny: ModelSource, tmp_path: Path) -> None:
    """It gets opt-tiny's: ids of any vocabulary, about 1.2 tokens a word, options of one token, BOS 0."""
    (tmp_path / "config.json").write_text("{}")
    task = load_task("sst2", source=ModelSource("bare", str(tmp_path), "random"))
    assert task.digest == load_task("sst2", source=opt_tiny).digest
    assert task.single_token_options and all(example.prompt[0] == 0 for example in task.train)
    assert (len(task.train), len(task.dev), len(task.eval)) == (1000, 500, 872)
    sentences = generated.sentences(1500, generated.TRAIN, generated.TASK, 0, 1)[:1000]
    words = sum(len(text.split()) for text, _ in sentences)
    tokens = sum(len(example.prompt) - 3 for example in task.train)  # BOS, " It", " was"
    assert tokens / words == pytest.approx(1.2, abs=0.06)
    assert "generated" in task.summary["warnings"][0]


def test_another_data_seed_is_another_digest(opt_tiny: ModelSource) -> None:
    assert load_task("sst2", source=opt_tiny).digest != load_task("sst2", source=opt_tiny, data_seed=1).digest
