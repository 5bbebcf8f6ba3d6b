"""The two tasks that opt-tiny learns: their shape, and that the right answer can be told from the sentence."""

from __future__ import annotations

import pytest

from bench.data import ModelSource
from bench.errors import UsageError
from workloads import generated
from workloads.tasks.load import load_task
from workloads.tasks.task import TaskOptions, make_task

POLAR = {*generated.POSITIVE, *generated.NEGATIVE}


def praised(sentence: str) -> bool:
    """By its first adjective, which has the polarity of the whole."""
    return next(word for word in sentence.split() if word in POLAR) in generated.POSITIVE


def test_a_choice_has_answers_of_any_number_and_length_and_one_is_right() -> None:
    task = make_task("tiny-choice")
    rows = task.generated(300, "train", 0)
    assert {len(task.options(row)) for row in rows} == {2, 3, 4}
    assert {len(option.split()) for row in rows for option in task.options(row)} == {1, 2, 3}
    for row in rows:
        word = "great" if praised(row["sentence"]) else "terrible"
        assert [n for n, option in enumerate(task.options(row)) if option.endswith(word)] == list(task.right(row))
    places = [task.right(row)[0] for row in rows]
    assert all(places.count(place) > 10 for place in range(4))


def test_an_answer_is_a_word_and_the_end_of_the_text(opt_tiny: ModelSource) -> None:
    task = load_task("tiny-answer", source=opt_tiny)
    assert (task.objective, task.metric, task.answer_tokens) == ("nll", "exact_match", 8)
    assert task.decode is not None
    for example in task.eval[:50]:
        (answer,) = example.options
        assert answer[-1] in task.stop_ids and task.decode(answer).strip() == example.references[0]
        sentence = task.decode(example.prompt).removesuffix(" It was")
        assert example.references == ("superb" if praised(sentence) else "awful",)


@pytest.mark.parametrize("name", ["tiny-choice", "tiny-answer"])
def test_they_have_rows_of_their_own_and_say_so(name: str, opt_tiny: ModelSource) -> None:
    task = load_task(name, source=opt_tiny)
    assert task.summary["origin"] == "generated" and "no benchmark" in task.summary["warnings"][0]
    with pytest.raises(UsageError, match=f"--data rows.csv: --task {name} has its own"):
        make_task(name, TaskOptions(data="rows.csv"))
