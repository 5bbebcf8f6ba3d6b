"""Rewards of generated text: what is called with what, what a step makes of it, and what is said of functions that fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.data import Example, ModelSource
from bench.errors import UsageError
from workloads.tasks.judge import judge
from workloads.tasks.load import load_task
from workloads.tasks.reward import Answered, find_reward, reward_losses
from workloads.tasks.task import TaskOptions, make_task
from workloads.tasks.tiny.sentence import praise

CODE = """
def seen(prompt, text, example):
    return len(prompt) * 1000 + len(text) + (100 if example.references else 0)

def broken(prompt, text, example):
    return 1 / 0

def nothing(prompt, text, example):
    pass

def endless(prompt, text, example):
    return float("inf")

number = 3
"""


@pytest.fixture
def rewards_py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the user's in the working directory, which is not on the search path of sessions."""
    (tmp_path / "my_rewards.py").write_text(CODE)
    (tmp_path / "half.py").write_text("import missing_library")
    monkeypatch.chdir(tmp_path)


def test_a_function_sees_prompt_text_and_example(rewards_py: None, opt_tiny: ModelSource) -> None:
    task = load_task("tiny-sentence", source=opt_tiny, reward="my_rewards:seen")
    assert task.metric == "reward" and task.summary["metric"] == "reward" and task.decode is not None
    examples = task.train[:2]
    answers = [[task.train[5].prompt[1:], ()], [(), ()]]
    texts = [[task.decode(ids).strip() for ids in found] for found in answers]
    expected = [
        -sum(len(task.decode(e.prompt)) * 1000 + len(t) + 100 for e, t in zip(examples, found, strict=True)) / 2
        for found in texts
    ]
    assert len(texts[0][0]) > 3
    assert reward_losses(task, examples, answers).tolist() == pytest.approx(expected)
    found = judge(task, examples, None, answers[0])
    assert found.score == pytest.approx(-expected[0]) and found.loss == -found.score and set(found.scores) == {
        "f1", "exact_match", "reward"
    }  # fmt: skip


def test_the_tasks_own_metric_is_a_reward() -> None:
    example = Example((1,), ((2,),), 0, references=("a blue whale", "two fish"))
    assert find_reward("task", "f1")("", "whale", example) == pytest.approx(2 / 3)
    assert find_reward("task", "exact_match")("", "Two fish!", example) == 1.0


@pytest.mark.parametrize(("name", "said"), [
    ("my_rewards", "must be task, or module:function"),
    ("my_rewards:", "must be task, or module:function"),
    ("no_such_module:f", "cannot be imported .ModuleNotFoundError: No module named 'no_such_module'"),
    ("half:f", "cannot be imported .ModuleNotFoundError: No module named 'missing_library'"),
    ("my_rewards:absent", "cannot be imported .AttributeError"),
    ("my_rewards:number", "is no function but int"),
])  # fmt: skip
def test_what_is_no_reward_is_said(name: str, said: str, rewards_py: None) -> None:
    with pytest.raises(UsageError, match=f"--reward {name}: {said}"):
        find_reward(name, "f1")


@pytest.mark.parametrize(("name", "said"), [
    ("broken", "failed on the answer 'so it goes' .ZeroDivisionError: division by zero.; mend the function"),
    ("nothing", "failed on the answer 'so it goes' .TypeError"),
    ("endless", "gave inf for the answer 'so it goes'; it must return a finite number"),
])  # fmt: skip
def test_what_a_function_does_wrong_is_said_in_one_line(name: str, said: str, rewards_py: None) -> None:
    reward = find_reward(f"my_rewards:{name}", "f1")
    with pytest.raises(UsageError, match=f"--reward my_rewards:{name}: {said}") as caught:
        reward("p", "so it goes", Example((1,), ((2,),), 0))
    assert "\n" not in str(caught.value)


def test_a_task_without_answers_has_nothing_to_reward() -> None:
    with pytest.raises(UsageError, match="--reward task: --task sst2 has no answers to generate"):
        make_task("sst2", TaskOptions(reward="task"))


@pytest.mark.parametrize(("text", "value"), [
    ("a superb film", 1 / 3), ("superb great awful", 1 / 3), ("awful dull", -1.0), ("", 0.0), ("film", 0.0),
])  # fmt: skip
def test_praise_counts_words(text: str, value: float) -> None:
    assert praise("", text, Example((1,), ((2,),), 0)) == pytest.approx(value)


def test_work_is_counted_pass_by_pass(opt_tiny: ModelSource) -> None:
    """Two states of two prompts of 3 and 5 tokens; answers of 4, 1, 2 and 2 tokens; a vocabulary of 10."""
    batch = [Example((1,) * 3, ((2,),), 0), Example((1,) * 5, ((2,),), 0)]
    lengths = ((4, 1), (2, 2))
    packed = Answered(lengths, 4).work(batch, 2, 10)
    assert packed == {"forwards": 4, "rows": 4, "tokens_scored": 21, "tokens_real": 21, "head_rows": 90}
    assert Answered(lengths, 2).work(batch, 2, 10)["forwards"] == 4 + 2
    assert Answered(lengths, 1).work(batch, 2, 10)["forwards"] == 4 + 1 + 2 + 2
    padded = Answered(lengths, 4, padded=True).work(batch, 2, 10)
    assert padded == packed | {"tokens_scored": 4 * (5 + 3), "head_rows": 160}
    assert Answered(lengths[:1], 2) + Answered(lengths[1:], 2) == Answered(lengths, 2)
    task = load_task("tiny-sentence", source=opt_tiny, reward="task")
    assert Answered.of(task, [[(5, 6), (), (7,) * 12]], 3).lengths == ((3, 1, 12),)


def test_openings_leave_something_to_go_on_with(opt_tiny: ModelSource) -> None:
    task = load_task("tiny-sentence", source=opt_tiny)
    assert (task.objective, task.metric, task.answer_tokens) == ("nll", "f1", 12) and task.decode is not None
    for example in task.eval[:50]:
        (target,) = example.options
        assert target[-1] in task.stop_ids and task.decode(target).strip() == example.references[0]
        assert 1 <= len(task.decode(example.prompt).split()) <= 3
