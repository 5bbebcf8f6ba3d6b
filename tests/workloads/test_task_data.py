"""From rows to what is scored: stand-ins, files in the hub's formats, upstream's split, demonstrations, objectives."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.data import ModelSource
from bench.errors import UsageError
from bench.registry import TASKS
from workloads.tasks.load import load_task
from workloads.tasks.task import TaskOptions, make_task

PUBLISHED = [name for name, target in TASKS.own.items() if target.startswith("workloads.tasks.published.")]
GOLDEN = json.loads((Path(__file__).parent / "golden" / "prompts.json").read_text())["tasks"]


@pytest.fixture
def bare(tmp_path: Path) -> ModelSource:
    """A model without a tokenizer of its own, with room for every row."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return ModelSource("bare", str(folder), "random")


def hub_folder(folder: Path, train: list[dict[str, Any]], validation: list[dict[str, Any]]) -> str:
    """The files that the hub has of a data set: parquet in data/."""
    (folder / "data").mkdir()
    for split, rows in (("train", train), ("validation", validation)):
        pd.DataFrame(rows).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def json_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_stand_in_has_the_published_sizes_and_is_called_generated(name: str) -> None:
    task = make_task(name)
    rows, other = (task.read(TaskOptions(data_seed=seed), offline=True) for seed in (0, 1))
    assert (len(rows.train), len(rows.dev), len(rows.eval)) == (task.sizes.train, task.sizes.dev, task.sizes.eval)
    assert rows.origin == "generated" and "generated" in rows.warnings[0]
    assert rows.train == task.read(TaskOptions(), offline=True).train != other.train
    right = [task.right(row) for row in rows.train]
    assert all(numbers and max(numbers) < len(task.options(row)) for numbers, row in zip(right, rows.train, strict=True))
    assert task.answer_tokens or len({numbers[0] for numbers in right}) > 1


@pytest.mark.parametrize(
    ("name", "column", "middle", "mean"),
    [
        ("rte", "premise", 36, 45),
        ("boolq", "passage", 95, 108),
        ("multirc", "paragraph", 260, 260),
        ("record", "query", 21, 21.4),
        ("squad", "context", 110, 120),
        ("drop", "passage", 195, 213),
        ("copa", "premise", 6, 6.2),
    ],
)
def test_a_stand_in_has_the_lengths_of_the_data_set(name: str, column: str, middle: float, mean: float) -> None:
    words = [len(row[column].split()) for row in make_task(name).generated(1500, "train", 3)]
    assert median(words) == pytest.approx(middle, rel=0.08, abs=1)
    assert fmean(words) == pytest.approx(mean, rel=0.08)


def test_the_stand_in_of_record_has_any_number_of_options_all_named_in_its_passage() -> None:
    task = make_task("record")
    rows = task.generated(200, "eval", 0)
    assert len({len(task.options(row)) for row in rows}) > 10
    assert all(entity in row["passage"] for row in rows for entity in row["entities"])


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("kind", ["hub", "jsonl"])
def test_rows_in_the_hubs_columns_give_the_recorded_prompts(name: str, kind: str, tmp_path: Path) -> None:
    """Parquet keeps lists and nested columns as JSON does. One of the two recorded rows is held out."""
    recorded = [case["row"] for case in GOLDEN[name]]
    rows = recorded * 2
    path = hub_folder(tmp_path, rows, recorded[:1]) if kind == "hub" else json_lines(tmp_path / "rows.jsonl", rows)
    task = make_task(name)
    found = task.read(TaskOptions(data=path), offline=True)
    prompts = {
        task.prompt(row): [task.prompt(row) + option for option in task.options(row)] for row in [*found.train, *found.eval]
    }
    expected = {case["prompt"]: case["texts"] for case in GOLDEN[name]}
    assert prompts.items() <= expected.items() and prompts[task.prompt(found.eval[0])]


@pytest.mark.parametrize(
    ("name", "train", "held_out", "trained_on", "dev"),
    [
        ("rte", 2490, 277, 1000, 500),
        ("cb", 250, 56, 150, 100),
        ("wsc", 554, 104, 54, 500),
        ("copa", 400, 100, 300, 100),
        ("boolq", 1600, 1300, 1000, 500),
    ],
)
def test_as_many_rows_as_the_hub_has_are_split_as_upstream_does(
    name: str, train: int, held_out: int, trained_on: int, dev: int, tmp_path: Path
) -> None:
    """A seeded permutation of the training rows; of its first ones, the last are dev. Judged by at most 1000, drawn alike."""
    task, row = make_task(name), GOLDEN[name][0]["row"]
    column = next(name for name, value in row.items() if isinstance(value, str))
    for split, count in (("train", train), ("validation", held_out)):
        json_lines(tmp_path / f"{split}.jsonl", [{**row, column: f"row {n}"} for n in range(count)])
    found = task.read(TaskOptions(data=str(tmp_path), data_seed=5), offline=True)
    order = np.random.RandomState(5).permutation(train)[: trained_on + dev]
    assert [r[column] for r in found.train] == [f"row {n}" for n in order[:trained_on]]
    assert [r[column] for r in found.dev] == [f"row {n}" for n in order[trained_on:]]
    judged = range(held_out) if held_out <= 1000 else np.random.RandomState(5).permutation(held_out)[:1000]
    assert [r[column] for r in found.eval] == [f"row {n}" for n in judged]
    assert found.read == train + held_out


def test_demonstrations_are_upstreams_in_context_sets(bare: ModelSource, tmp_path: Path) -> None:
    """Each held-out prompt has a set of its own, drawn by numbers from seed 0; all others share one, of rows they are not."""
    rows = [{"sentence": f" s{n} ", "label": n % 2} for n in range(40)]
    path = hub_folder(tmp_path, rows, [{"sentence": f"e{n}", "label": 1} for n in range(3)])
    task = load_task("sst2", source=bare, data=path, data_seed=3, demonstrations=2)

    def shown(numbers: Any) -> str:
        return "".join(f"s{n} It was {('terrible', 'great')[n % 2]}\n\n" for n in numbers)

    assert task.decode is not None
    seeds = np.random.RandomState(0).randint(0, 10000, 1000)
    for number, example in enumerate(task.eval):
        own = np.random.RandomState(seeds[number]).permutation(40)[:2]
        assert task.decode(example.prompt[1:]) == shown(own) + f"e{number} It was"
    order = np.random.RandomState(3).permutation(40)
    assert task.decode(task.train[0].prompt[1:]) == shown(order[:2]) + f"s{order[2]} It was"
    assert len(task.train) + len(task.dev) == 38 and task.summary["demonstrations"] == 2
    with pytest.raises(UsageError, match="--demonstrations 38: too few rows: 40 to train on, and 41 are needed"):
        load_task("sst2", source=bare, data=path, demonstrations=38)


def test_spaces_around_prompt_and_row_are_no_tokens(bare: ModelSource, tmp_path: Path) -> None:
    """COPA's prompt ends in a space, which upstream strips before it encodes, so that the option begins with it."""
    row = {"premise": " It rained.", "choice1": "the film was great. ", "choice2": "a", "question": "effect", "label": 0}
    task = load_task("copa", source=bare, data=json_lines(tmp_path / "rows.jsonl", [row] * 4), objective="classification")
    (example,) = task.eval
    assert task.decode is not None
    assert task.decode(example.prompt[1:]) == "It rained so"
    assert [task.decode(option) for option in example.options] == [" the film was great.", " a"]


@pytest.mark.parametrize("name", [name for name in PUBLISHED if GOLDEN[name][0]["calibration"]])
def test_calibration_keeps_the_options_and_leaves_the_content_out(name: str, bare: ModelSource, tmp_path: Path) -> None:
    recorded = GOLDEN[name]
    path = json_lines(tmp_path / "rows.jsonl", [case["row"] for case in recorded] * 2)
    task = load_task(name, source=bare, data=path, calibrate=True)
    assert task.decode is not None and len(task.calibration) == len(task.eval)
    expected = {case["calibration"]["prompt"].strip(" ") for case in recorded}
    for alone, example in zip(task.calibration, task.eval, strict=True):
        assert task.decode(alone.prompt[1:]) in expected
        assert [task.decode(option) for option in alone.options] == [task.decode(option) for option in example.options]


def test_what_is_trained_by_its_target_alone_has_that_option_alone(bare: ModelSource, tmp_path: Path) -> None:
    """Of the training rows; dev and held-out ones keep all options, to be judged by."""
    rows = [case["row"] for case in GOLDEN["copa"]] * 4
    task = load_task("copa", source=bare, data=hub_folder(tmp_path, rows, rows))
    assert task.objective == "nll" and task.metric == "accuracy"
    assert all(len(example.options) == 1 and example.label == 0 for example in task.train)
    assert all(len(example.options) == 2 for example in (*task.dev, *task.eval))
    classified = load_task("copa", source=bare, data=str(tmp_path), objective="classification")
    assert all(len(example.options) == 2 for example in classified.train)
    assert classified.eval == task.eval and classified.digest != task.digest


def test_a_generated_answer_ends_with_its_line_and_keeps_every_reference(bare: ModelSource, tmp_path: Path) -> None:
    rows = [case["row"] for case in GOLDEN["squad"]] * 2
    task = load_task("squad", source=bare, data=json_lines(tmp_path / "rows.jsonl", rows))
    assert (task.objective, task.metric, task.answer_tokens) == ("nll", "f1", 50)
    assert task.decode is not None
    for example in task.train:
        assert [task.decode(option) for option in example.options] == [f" {example.references[0]}\n"]
        assert example.options[0][-1] in task.stop_ids
    assert {example.references for example in (*task.train, *task.eval)} == {("1811", "in 1811"), ("one",)}
    assert task.max_tokens == max(len(example.prompt) for example in (*task.train, *task.dev, *task.eval)) + 50


def test_an_option_that_is_there_twice_is_right_twice(bare: ModelSource, tmp_path: Path) -> None:
    row = {"passage": "P", "query": "@placeholder left", "entities": ["Ann", "Bo", "Ann"], "answers": ["Ann"]}
    task = load_task("record", source=bare, data=json_lines(tmp_path / "rows.jsonl", [row] * 5))
    assert (task.eval[0].label, task.eval[0].right) == (0, (0, 2))


def test_rows_beyond_the_models_positions_lose_their_beginning_and_are_counted(opt_tiny: ModelSource, tmp_path: Path) -> None:
    row = GOLDEN["multirc"][0]["row"]
    rows = [row] * 4 + [{**row, "paragraph": "Long ago. " * 200 + row["paragraph"]}]
    task = load_task("multirc", source=opt_tiny, data=json_lines(tmp_path / "rows.jsonl", rows))
    assert task.summary["truncated"] == {"train": 0, "dev": 0, "eval": 1} and task.max_tokens <= 256
    assert task.decode is not None
    kept, whole = task.decode(task.eval[0].prompt), task.decode(task.train[0].prompt)
    assert kept.endswith(whole) and task.eval[0].prompt[0] == 0  # BOS and the question stay
    assert any("lost their beginning: 1 of eval" in warning for warning in task.summary["warnings"])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("copa", {"question": "reason"}, "row 1: question 'reason'; expected cause or effect"),
        ("copa", {"label": -1}, "row 1: label -1 marks an unlabelled row"),
        ("cb", {"label": 3}, "row 1: label 3; expected 0 .entailment., 1 .contradiction., 2 .neutral."),
        ("boolq", {"question": " "}, "row 1: the question is empty"),
        ("boolq", {"answer": "maybe"}, "row 1: answer 'maybe'"),
        ("record", {"query": "Nobody left"}, "row 1: the query has no @placeholder"),
        ("record", {"answers": ["Leeds"]}, "row 1: the answer 'Leeds' is none of the entities"),
        ("record", {"entities": []}, "row 1: entities .*expected texts"),
        ("squad", {"answers": {"text": []}}, "row 1: answers .*expected texts"),
        ("squad", {"answers": {"texts": ["a"]}}, "row 1: answers .*expected texts"),
        ("drop", {"answers_spans": "7"}, None),
        ("multirc", {"answer": ""}, None),
    ],
)
def test_wrong_rows_are_named(name: str, changes: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    row = GOLDEN[name][0]["row"] | changes
    options = TaskOptions(data=json_lines(tmp_path / "rows.jsonl", [row] * 4))
    if message is None:
        assert make_task(name).read(options, offline=True).train
    else:
        with pytest.raises(UsageError, match=message):
            make_task(name).read(options, offline=True)
