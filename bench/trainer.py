"""Zeroth-order fine-tuning from a program, in the manner of Hugging Face's Trainer: a thin layer over sessions.

    from bench import ZOTrainer, ZOTrainingArguments
    trainer = ZOTrainer("opt-tiny", ZOTrainingArguments("tuned", max_steps=200), task="sst2")
    trainer.train()
    trainer.save_model("tuned/model")

A training is a run as `python -m bench run` makes it: a fresh process, a journal, a result file in `output_dir/local`. Callbacks
are `transformers`' (TrainerCallback): `control.should_training_stop` ends it, and `train(resume_from_checkpoint=True)` goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import RunOptions, RunSpec
from bench.defaults import EXECUTOR, complete
from bench.errors import UsageError
from bench.files import write_atomically
from bench.journal.events import Event
from bench.journal.store import Store
from bench.result import Evaluation, Result, SessionResult, load_result

if TYPE_CHECKING:
    from transformers.trainer_utils import TrainOutput

    from bench.harness.conduct import RunInProgress

FALLBACK = "eager"
"""Where vLLM does not run a model or a setting and no executor was named."""
Rows = Iterable[Mapping[str, Any]]


@dataclass
class ZOTrainingArguments:
    """Named as `transformers.TrainingArguments` names them; None is the algorithm's own default.

    executor        None: vllm, or eager where that refuses the model or the settings
    eval_steps      looks at the dev split on the way; None: at the end alone; 0: no evaluation, of the held-out rows neither
    logging_steps   steps between two entries of the log
    more            any other field of bench.config.RunSpec by name: rank, queries, eps, interval, scope, dtype, until, ...
    """

    output_dir: str = "zo-output"
    workload: str = "lozo"
    executor: str | None = None
    max_steps: int = 300
    per_device_train_batch_size: int = 16
    learning_rate: float | None = None
    lr_scheduler_type: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    eval_steps: int | None = None
    save_steps: int = 0
    logging_steps: int = 10
    seed: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        """As options of a run. UsageError for a number that can be none."""
        if self.max_steps < 1 or self.logging_steps < 1:
            raise UsageError(f"max_steps {self.max_steps}, logging_steps {self.logging_steps}: must be at least 1")
        return {
            "workload": self.workload,
            "steps": self.max_steps,
            "warmup": 0,
            "batch_size": self.per_device_train_batch_size,
            "learning_rate": self.learning_rate,
            "lr_schedule": self.lr_scheduler_type,
            "lr_warmup": self.warmup_steps,
            "weight_decay": self.weight_decay,
            "eval_every": self.max_steps if self.eval_steps is None else self.eval_steps,
            "checkpoint_every": self.save_steps,
            "seed": self.seed,
            **self.more,
        }


class ZOTrainer:
    """Fine-tunes a causal LM with forward passes alone.

    model              name in `python -m bench list`, hub id, path, or a loaded `transformers` model with `processing_class`
    train_dataset      rows with the columns of `template`, by default `text`, and `label`: 0, 1, ... or the answers' words
    eval_dataset       the same, held out; without it the last fifth of the rows is
    template, options  how a row becomes a prompt and its answers (docs/tasks.md); instead of them and of rows: task, by name
    """

    def __init__(
        self,
        model: Any,
        args: ZOTrainingArguments | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | None = None,
        *,
        task: str | None = None,
        template: str = "{text} It was{option}",
        options: Sequence[str] = (),
        processing_class: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        from transformers.trainer_callback import TrainerControl, TrainerState

        self.args = args or ZOTrainingArguments()
        if (task is None) == (train_dataset is None):
            raise UsageError("ZOTrainer: give either a task by its name, or train_dataset with options for its labels")
        self._store = Store(self.args.output_dir)
        self._folder = self._store.local.parent
        self._task: dict[str, Any] = {"task": task}
        self._template, self._options = template, options
        if train_dataset is not None:
            self._task = self._own(train_dataset, eval_dataset)
        self._model = self._place(model, processing_class)
        self.callbacks = list(callbacks)
        self.state: Any = TrainerState(max_steps=self.args.max_steps)
        self.control: Any = TrainerControl()
        self.result: Result | None = None

    def train(self, resume_from_checkpoint: bool | str | None = None) -> TrainOutput:
        """Run, or go on with the run that was cut short (True: the newest in output_dir; a string: its id).

        RuntimeError, naming what went wrong, when the session failed; UsageError for what cannot be run.
        """
        self.control.should_training_stop = False
        self._call("on_train_begin")
        if resume_from_checkpoint:
            self._resume(self._newest() if resume_from_checkpoint is True else str(resume_from_checkpoint))
        else:
            self.result = self._in_turn(self.args.given() | self._task | {"model": self._model}, self._watch)
        session = self._session
        if session.status != "passed" and not self.control.should_training_stop:
            raise RuntimeError(f"{session.status}: {session.error}")
        self._call("on_train_end")
        return self._output(session)

    def evaluate(self, eval_dataset: Rows | None = None) -> dict[str, float]:
        """Score and loss of the held-out rows, or of others, at the best state by dev loss: `eval_accuracy`, `eval_loss`, ..."""
        if self.result is not None and eval_dataset is None and (found := _held_out(self._session)):
            return _metrics(found)
        model = self._model if self.result is None else self._merged()
        task, size = self._task, self.args.per_device_train_batch_size
        if eval_dataset is not None:
            rows = list(eval_dataset)
            task, size = self._own(rows, rows), max(1, min(size, len(rows) // 4))
        still = {"steps": 1, "warmup": 0, "learning_rate": 0.0, "eval_every": 1, "batch_size": size}  # its step goes nowhere
        given = {name: value for name, value in self.args.more.items() if name in ("dtype", "device", "weights", "kv")}
        result = self._in_turn(given | still | task | {"model": model}, lambda event: False)
        metrics = _metrics(next(e for e in result.sessions[0].evaluations if e.split == "eval"))
        self._call("on_evaluate", metrics=metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, *, format: str = "merged", rank: int | None = None) -> str:
        """Hugging Face weights (merged) or a PEFT adapter (peft, of that rank by SVD) of the best state; returns the folder."""
        from bench.commands.export import export

        if self.result is None:
            raise UsageError("save_model: nothing is trained yet; call train() first")
        where = output_dir or str(self._folder / "model")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            export(self.result.id, {}, format=format, output=where, rank=rank, state=None, results=str(self._folder))
        return where

    @property
    def _session(self) -> SessionResult:
        if self.result is None or not self.result.sessions:
            raise UsageError("ZOTrainer: nothing is trained yet; call train() first")
        return self.result.sessions[0]

    def _in_turn(self, given: dict[str, Any], watch: Any) -> Result:
        """A run on the executor named, or on vLLM, or on the fallback."""
        named = self.args.executor
        executors = [named] if named else [EXECUTOR, FALLBACK]
        for executor in executors[:-1]:
            try:
                return self._run(complete(given | {"executor": executor}), watch)
            except UsageError as error:
                warnings.warn(f"not on {executor} ({error}); {executors[-1]} takes over", stacklevel=3)
        return self._run(complete(given | {"executor": executors[-1]}), watch)

    def _run(self, spec: RunSpec, watch: Any) -> Result:
        from bench.harness.conduct import conduct, start
        from bench.terminal import stderr_console

        options = RunOptions(1, profile=False, results=str(self._folder))
        runs: list[RunInProgress] = start([spec], options, self._store)
        conduct(runs, options, self._store, stderr_console(), quiet=True, tables=False, watch=watch)
        return runs[0].result

    def _resume(self, run: str) -> None:
        from bench.commands.resume import resume
        from bench.journal.file import find_journals

        (path,) = find_journals(run, self._folder)
        resume(run, {}, results=str(self._folder), quiet=True, watch=self._watch)
        self.result = load_result(path.with_name(path.name.replace(".journal.jsonl", ".json")))

    def _newest(self) -> str:
        from bench.journal.file import SUFFIX

        found = sorted(self._store.local.glob(f"*{SUFFIX}"))
        if not found:
            raise UsageError(f"resume_from_checkpoint: no run in {self._folder}; call train() without it")
        return str(found[-1])

    def _watch(self, event: Event) -> bool:
        """Tell the callbacks; whether they want it to end."""
        args, state = self.args, self.state
        match event["event"]:
            case "step":
                state.global_step = event["step"] + 1
                self._call("on_step_end")
                if state.global_step % args.logging_steps == 0:
                    loss = sum(event["losses"]) / len(event["losses"])
                    self._log({"loss": loss, "learning_rate": event["learning_rate"], "step_s": event["step_s"]})
            case "evaluation":
                metrics = _metrics(Evaluation(**{name: value for name, value in event.items() if name != "event"}))
                self._call("on_evaluate", metrics=metrics)
                self._log(metrics)
        return bool(self.control.should_training_stop)

    def _log(self, entry: dict[str, float]) -> None:
        self.state.log_history.append(entry | {"step": self.state.global_step})
        self._call("on_log", logs=entry)

    def _call(self, event: str, **more: Any) -> None:
        """Every callback's method of that name; what one returns is the control from then on."""
        for callback in self.callbacks:
            self.control = getattr(callback, event)(self.args, self.state, self.control, **more) or self.control

    def _output(self, session: SessionResult) -> TrainOutput:
        from transformers.trainer_utils import TrainOutput

        losses = [sum(step) / len(step) for step in session.losses]
        seconds = sum(session.warmup_s) + sum(session.step_s)
        rows, pace = self.args.per_device_train_batch_size, len(losses) / seconds if seconds else 0.0
        metrics = {"train_runtime": session.wall_s or 0.0, "train_steps_per_second": pace}
        metrics |= {"train_samples_per_second": pace * rows}
        metrics |= _metrics(found) if (found := _held_out(session)) else {}
        return TrainOutput(len(losses), sum(losses) / len(losses) if losses else 0.0, metrics)

    def _merged(self) -> str:
        assert self.result is not None
        where = self._folder / f"merged-{self.result.id}"
        return str(where) if where.exists() else self.save_model(str(where))

    def _place(self, model: Any, processing_class: Any) -> str:
        """What a run may load: a name or a path; a loaded model is saved first."""
        if isinstance(model, str | Path):
            return str(model)
        if not hasattr(model, "save_pretrained") or processing_class is None:
            raise UsageError("ZOTrainer: model is a name, a path, or a transformers model together with processing_class")
        where = self._folder / "start"
        model.save_pretrained(where)
        processing_class.save_pretrained(where)
        return str(where)

    def _own(self, train: Rows, held_out: Rows | None) -> dict[str, Any]:
        """Rows as files of a task of one's own, in a folder named by what they hold."""
        if len(self._options) < 2:
            raise UsageError('ZOTrainer: options names the answers of the labels 0, 1, ..., as in [" bad", " great"]')
        texts = {"train": _lines(train)} | ({"validation": _lines(held_out)} if held_out is not None else {})
        name = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:8]
        folder = self._folder / f"rows-{name}"
        folder.mkdir(exist_ok=True)
        for split, text in texts.items():
            write_atomically(folder / f"{split}.jsonl", text)
        options = ",".join(option.replace(",", "\\,") for option in self._options)
        return {"task": None, "template": self._template, "options": options, "data": str(folder)}


def _lines(rows: Rows) -> str:
    return "".join(json.dumps(dict(row), ensure_ascii=False, default=str) + "\n" for row in rows)


def _held_out(session: SessionResult) -> Evaluation | None:
    """Of the state that save_model saves: the best by dev loss, where it is not the last."""
    after = [e for e in session.evaluations if e.step > 0 and e.split in ("eval", "best")]
    return next((e for e in after if e.split == "best"), after[-1] if after else None)


def _metrics(found: Evaluation) -> dict[str, float]:
    """`eval_accuracy` and the like of the held-out rows, `dev_...` of the dev rows."""
    split = "dev" if found.split == "dev" else "eval"
    named: dict[str, float] = {found.metric: found.accuracy, "loss": found.loss, **found.scores}
    named |= {"standard_error": found.standard_error, "examples": found.examples}
    return {f"{split}_{name}": value for name, value in named.items()}
