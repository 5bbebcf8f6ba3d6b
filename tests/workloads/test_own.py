"""Data of the user's own: a template, its answers, the columns they name, and what is said when something does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.defaults import complete
from bench.errors import UsageError
from workloads.rows.table import DataOptions
from workloads.tasks.task import Row, Task, TaskOptions, make_task

REVIEWS = [{"text": f"film {n}", "label": n % 2} for n in range(8)]


def read(folder: Path, table: list[dict[str, Any]], suffix: str = "csv", **options: Any) -> tuple[Task, list[Row]]:
    path = folder / f"rows.{suffix}"
    frame = pd.DataFrame(table)
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_json(path, orient="records", lines=True)
    given = TaskOptions(data=str(path), **options)
    task = make_task("own", given)
    found = task.read(given, offline=True)
    return task, [*found.train, *found.dev, *found.eval]


def written(task: Task, row: Row) -> list[str]:
    return [task.prompt(row) + option for option in task.options(row)]


def test_a_template_with_options_makes_a_classification(tmp_path: Path) -> None:
    task, rows = read(tmp_path, REVIEWS, template="{text} It was{option}", options=" bad, great")
    assert (task.objective, task.metric, task.answer_tokens) == ("classification", "accuracy", 0)
    row = next(row for row in rows if row["text"] == "film 3")
    assert task.prompt(row) == "film 3 It was"
    assert written(task, row) == ["film 3 It was bad", "film 3 It was great"]
    assert task.right(row) == (1,)


def test_what_follows_the_answers_place_belongs_to_the_answer(tmp_path: Path) -> None:
    task, rows = read(tmp_path, REVIEWS, template=r"Was it good?\n{option}, for: {text} {{end}}", options=r"No\, never,Yes")
    assert task.prompt(rows[0]) == "Was it good?\n"
    assert list(task.options(rows[0])) == [f"{answer}, for: {rows[0]['text']} {{end}}" for answer in ("No, never", "Yes")]


def test_options_may_be_columns_and_so_differ_from_row_to_row(tmp_path: Path) -> None:
    rows = [{"start": "He", "a": f"ran {n}", "b": "sat", "label": n % 2} for n in range(6)]
    task, found = read(tmp_path, rows, template="{start} {option}.", options="{a},{b}")
    assert {written(task, row)[0] for row in found} == {f"He ran {n}." for n in range(6)}


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (["bad", "great"], DataOptions()),
        ([0, 1], DataOptions()),
        (["neg", "pos"], DataOptions(labels=("neg", "pos"))),
        (["1", "5"], DataOptions(labels=("1", "5"))),
    ],
)
def test_a_label_is_a_number_an_answer_or_a_word_of_the_users(values: list[Any], options: DataOptions, tmp_path: Path) -> None:
    rows = [{"text": str(n), "label": values[n % 2]} for n in range(8)]
    task, found = read(tmp_path, rows, template="{text} It was{option}", options=" bad, great", rows=options)
    assert all(task.right(row) == (int(row["text"]) % 2,) for row in found)


def test_columns_are_renamed(tmp_path: Path) -> None:
    rows = [{"review": f"r{n}", "stars": n % 2} for n in range(8)]
    renamed = DataOptions(columns={"text": "review", "label": "stars"})
    task, found = read(tmp_path, rows, template="{text} It was{option}", options=" bad, great", rows=renamed)
    assert sorted(task.prompt(row) for row in found) == [f"r{n} It was" for n in range(8)]


@pytest.mark.parametrize("template", ["{question} Answer: {answer}", "{question} Answer:", r"{question} Answer: {answer}\n"])
def test_a_target_is_an_answer_to_generate(template: str, tmp_path: Path) -> None:
    rows = [{"question": f"q{n}?", "answer": f"a {n}"} for n in range(8)]
    task, found = read(tmp_path, rows, template=template, target="answer")
    assert (task.objective, task.metric, task.answer_tokens) == ("nll", "f1", 50)
    row = next(row for row in found if row["question"] == "q3?")
    assert written(task, row) == ["q3? Answer: a 3\n"]
    assert task.prompt(row).rstrip() == "q3? Answer:" and list(task.references(row)) == ["a 3"]


def test_several_answers_may_be_right(tmp_path: Path) -> None:
    rows = [{"q": "?", "a": ["one", "1"]}, {"q": "?", "a": ["two"]}] * 3
    task, found = read(tmp_path, rows, "jsonl", template="{q}", target="a")
    assert {tuple(task.references(row)) for row in found} == {("one", "1"), ("two",)}
    assert {written(task, row)[0] for row in found} == {"? one\n", "? two\n"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--task own: --template says how a row becomes a prompt"),
        ({"template": "{text}"}, "--template: say what the answers are"),
        ({"template": "{text}{option}", "options": "a,b", "target": "c"}, "--template: say what the answers are"),
        ({"template": "{text}", "options": " a, b"}, "--template {text}: put {option} once"),
        ({"template": "{option} {option}", "options": "a,b"}, "put {option} once"),
        ({"template": "{text", "options": " a, b"}, "--template {text: expected '}'"),
        ({"template": "{text!r}{option}", "options": "a,b"}, "braces hold the name of a column"),
        ({"template": "{}{option}", "options": "a,b"}, "braces hold the name of a column"),
        ({"template": "{text}{option}", "options": "a"}, "--options a: name two answers or more"),
        ({"template": "{text}{option}", "options": "a,,b"}, "--options a,,b: name two answers or more"),
        ({"template": "{text}", "target": "a", "objective": "classification"}, "--objective classification: --target"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_task("own", TaskOptions(**options))
    assert message in str(refused.value)


def test_rows_without_a_named_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column 'review'"):
        read(tmp_path, REVIEWS, template="{review} It was{option}", options=" bad, great")
    with pytest.raises(UsageError, match=r"row 1 .line 2.: label .good.; expected 0 .bad., 1 .great."):
        read(tmp_path, [{"text": "t", "label": "good"}] * 8, template="{text} It was{option}", options=" bad, great")


def test_a_template_is_the_task_and_the_published_ones_take_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pd.DataFrame(REVIEWS).to_csv(path, index=False)
    cell = {"executor": "fake", "device": "cpu", "data": str(path)}
    spec = complete({**cell, "template": "{text} It was{option}", "options": " bad, great"})
    assert (spec.task, spec.objective) == ("own", "classification")
    assert complete({**cell, "template": "{text}", "target": "text"}).objective == "nll"
    with pytest.raises(UsageError, match="--template: --task sst2 has a prompt of its own"):
        complete({**cell, "task": "sst2", "template": "{text}{option}"})
    with pytest.raises(UsageError, match="--objective classification: SQuAD has no options"):
        complete({**cell, "task": "squad", "objective": "classification"})
    assert complete({**cell, "task": "copa"}).objective == "nll"
    assert complete({**cell, "task": "copa", "objective": "classification"}).objective == "classification"
