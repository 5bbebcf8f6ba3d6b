"""Prompts, options, right answers and metrics as upstream's own code gave them (`golden/prompts.json`), to the character."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.data import Example
from bench.registry import TASKS, resolve
from workloads.rows.table import Row, Table
from workloads.tasks import metrics
from workloads.tasks.published.base import PublishedTask

GOLDEN = json.loads((Path(__file__).parent / "golden" / "prompts.json").read_text())
RECORDED = [pytest.param(name, case, id=f"{name}-{n}") for name, cases in GOLDEN["tasks"].items() for n, case in enumerate(cases)]


def task_and_row(name: str, values: dict[str, Any]) -> tuple[PublishedTask, Any]:
    task = resolve(TASKS, "--task", name)()
    return task, task.clean(Table((Row(values, "golden", 1),)))[0]


def texts(name: str, **values: Any) -> list[str]:
    """Prompt and every option, of a row that was not recorded."""
    task, row = task_and_row(name, values)
    return [task.prompt(row), *task.options(row)]


@pytest.mark.parametrize(("name", "case"), RECORDED)
def test_prompt_and_texts_are_upstreams(name: str, case: dict[str, Any]) -> None:
    task, row = task_and_row(name, case["row"])
    prompt = task.prompt(row)
    assert prompt == case["prompt"]
    assert [prompt + option for option in task.options(row)] == case["texts"]
    assert task.calibration(row) == (case["calibration"] and case["calibration"]["prompt"])


@pytest.mark.parametrize(("name", "case"), RECORDED)
def test_the_right_answer_is_upstreams(name: str, case: dict[str, Any]) -> None:
    task, row = task_and_row(name, case["row"])
    if case["candidates"] is None:
        assert list(task.references(row)) == case["right"]
        assert task.right(row) == (0,)
    else:
        right = [case["candidates"][number] for number in task.right(row)]
        assert right == (case["right"] if isinstance(case["right"], list) else [case["right"]])


@pytest.mark.parametrize("case", GOLDEN["metrics"], ids=lambda case: case["prediction"] or "nothing")
def test_metrics_are_upstreams(case: dict[str, Any]) -> None:
    assert metrics.f1(case["prediction"], case["answers"]) == case["f1"]
    assert metrics.exact_match(case["prediction"], case["answers"]) == case["exact"]


def test_copa_takes_one_full_stop_off_and_keeps_i_large() -> None:
    row = {"question": "cause", "label": 0}
    assert texts("copa", premise="It rained...  ", choice1="I Ran.", choice2="I'm late.", **row) == [
        "It rained.. because ",
        "I Ran.",
        "i'm late.",
    ]
    assert texts("copa", premise="Who knew?", choice1="Mary Ann left.", choice2=" A gap. ", **row) == [
        "Who knew? because ",
        "mary Ann left.",
        " A gap. ",
    ]


def test_boolq_asks_in_the_form_of_a_question() -> None:
    assert texts("boolq", passage="P. ", question="éclairs are sweet ", answer=False)[0] == "P.  Éclairs are sweet ?\n"
    assert texts("boolq", passage="P.", question="is it??", answer=True)[0] == "P. Is it??\n"


def test_record_fills_every_gap_and_marks_every_highlight() -> None:
    row = {"query": "@placeholder met @placeholder's twin", "entities": ["Ann", "Bo", "Ann"], "answers": ["Bo", "Ann"]}
    passage = "One.\n@highlight\nTwo\n@highlight\nThree @highlight"
    assert texts("record", passage=passage, **row) == [
        "One.\n- Two\n- Three @highlight\n-",
        " Ann met Ann's twin",
        " Bo met Bo's twin",
        " Ann met Ann's twin",
    ]
    task, cleaned = task_and_row("record", {"passage": passage, **row})
    assert task.right(cleaned) == (1, 0, 2)  # trained towards the first answer; a name that is there twice is right twice


def test_wsc_writes_the_pronoun_small_and_the_noun_as_it_is() -> None:
    row = {"text": "T.", "span1_text": "The Cup", "span2_text": "It", "label": 1}
    assert '"it" refer to The Cup?' in texts("wsc", **row)[0]


@pytest.mark.parametrize(
    ("answer", "references", "f1", "exact"),
    [
        ("7", ["no answer", "7"], 0.0, 1.0),  # F1 asks for the refusal alone where it comes first
        ("No answer!", ["no answer"], 1.0, 1.0),
        ("CannotAnswer", ["CANNOTANSWER"], 1.0, 1.0),
        ("the", ["a"], 0.0, 1.0),  # nothing is left of either
        ("banana-split", ["bananasplit"], 1.0, 1.0),
        ("a theatre", ["theatre"], 1.0, 1.0),
        ("cat cat dog", ["cat dog dog"], 2 / 3, 0.0),
        ("dog  cat", ["cat dog", "x"], 1.0, 0.0),
    ],
)
def test_metrics_by_hand(answer: str, references: list[str], f1: float, exact: float) -> None:
    assert metrics.f1(answer, references) == pytest.approx(f1)
    assert metrics.exact_match(answer, references) == exact


def test_any_right_option_counts() -> None:
    examples = [Example((0,), ((1,), (2,), (3,)), 1, right=(1, 2)), Example((0,), ((1,), (2,)), 0)]
    assert metrics.correct([2, 0], examples) == [1.0, 1.0]
    assert metrics.correct([0, 1], examples) == [0.0, 0.0]
