"""docs/trainer.md does what it says: its code runs as it is printed, on vLLM; then stopping, going on, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "trainer.md"
BAD = ["awful", "boring", "clumsy", "tedious", "lifeless", "shallow", "dull", "bland", "messy"]
GOOD = ["wonderful", "charming", "brilliant", "moving", "delightful", "clever", "superb", "warm", "funny"]


@pytest.fixture(scope="module")
def page(tmp_path_factory, opt_tiny):
    """The names of the page's code after it ran, in a folder of its own."""
    names = {"BAD": BAD, "GOOD": GOOD}
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("page")
        patch.chdir(folder)
        first, second = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        exec(first, names)
        names["trained"] = names["trainer"]
        exec(second, names)
        yield names | {"folder": folder}


def test_it_learns_on_vllm_and_says_what_it_does(page):
    trainer, output = page["trained"], page["output"]
    assert trainer.result.spec["executor"] == "vllm" and output.global_step == 160
    assert output.metrics["eval_accuracy"] > 0.85 and trainer.evaluate()["eval_accuracy"] == output.metrics["eval_accuracy"]
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == list(range(10, 161, 10)) and logged[-1]["loss"] < logged[0]["loss"]
    assert [entry["step"] for entry in trainer.state.log_history if "dev_accuracy" in entry] == [80, 160]


def test_what_is_saved_scores_as_what_was_trained(page):
    """The merged model, loaded anew and judged on the same rows by a run that moves nothing."""
    from bench import ZOTrainer, ZOTrainingArguments

    args = ZOTrainingArguments(str(page["folder"] / "again"), executor="eager")
    again = ZOTrainer(str(page["folder"] / "tuned" / "model"), args, task="sst2")
    found, told = again.evaluate(), page["output"].metrics
    assert found["eval_accuracy"] == pytest.approx(told["eval_accuracy"], abs=2e-3)
    assert found["eval_loss"] == pytest.approx(told["eval_loss"], abs=1e-4)


def test_rows_of_ones_own_stopped_and_gone_on_with(page, monkeypatch):
    """A callback ends it at step 20; gone on with, its losses are those of a run that was never stopped."""
    from transformers import TrainerCallback

    from bench import ZOTrainer, ZOTrainingArguments

    class Ends(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 20

    monkeypatch.chdir(page["folder"])
    rows, how = page["rows"], {"template": "{text} It was{option}", "options": [" terrible", " great"]}

    def make(folder, *callbacks):
        args = ZOTrainingArguments(folder, executor="eager", max_steps=40, per_device_train_batch_size=4, seed=3)
        return ZOTrainer("opt-tiny", args, train_dataset=rows, callbacks=callbacks, **how)

    stopped = make("stopped", Ends())
    assert stopped.train().global_step >= 20 and stopped.result.status == "failed"
    (lines,) = (page["folder"] / "stopped").glob("rows-*/train.jsonl")
    assert [json.loads(line) for line in lines.read_text().splitlines()] == rows
    went_on, whole = make("stopped"), make("whole")
    assert went_on.train(resume_from_checkpoint=True).global_step == 40
    whole.train()
    assert went_on.result.sessions[0].losses == whole.result.sessions[0].losses


def test_what_vllm_refuses_eager_takes_over_and_what_nobody_can_run_is_said(page, monkeypatch):
    from bench import ZOTrainer, ZOTrainingArguments
    from bench.errors import UsageError

    monkeypatch.chdir(page["folder"])
    args = ZOTrainingArguments("fallback", max_steps=2, eval_steps=0, more={"rank": 400})
    trainer = ZOTrainer("opt-tiny", args, task="sst2")
    with pytest.warns(UserWarning, match="not on vllm .*--rank 400.*; eager takes over"):
        trainer.train()
    assert trainer.result.spec["executor"] == "eager"
    with pytest.raises(UsageError, match="either a task by its name, or train_dataset"):
        ZOTrainer("opt-tiny", args)
    with pytest.raises(UsageError, match="options names the answers"):
        ZOTrainer("opt-tiny", args, train_dataset=page["rows"])
    with pytest.raises(UsageError, match="nothing is trained yet"):
        ZOTrainer("opt-tiny", args, task="sst2").save_model()
    with pytest.raises(UsageError, match="a transformers model together with processing_class"):
        ZOTrainer(object(), args, task="sst2")
