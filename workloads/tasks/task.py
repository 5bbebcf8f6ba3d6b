"""What a task is: rows of a data set, and how a row becomes a prompt, what may follow it, and what is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

from bench.data import Metric, Objective
from bench.errors import UsageError
from bench.registry import TASKS, resolve
from workloads.rows.table import DataOptions

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TaskOptions:
    """What a user says of a task: the spec's fields of these names, and `rows`, how a file is to be understood.

    data            file or folder, None for the task's own data
    demonstrations  in-context examples before every prompt
    calibrate       judge held-out examples by what their prompts add to the log-probs of the answers
    objective       None for the task's own
    reward          of generated answers, by its name; None: training is by the objective
    """

    data: str | None = None
    rows: DataOptions = field(default_factory=DataOptions)
    data_seed: int = 0
    demonstrations: int = 0
    calibrate: bool = False
    objective: Objective | None = None
    reward: str | None = None
    template: str | None = None
    options: str | None = None
    target: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TaskOptions:
        """From fields of a spec, some of which may be missing. UsageError for what says nothing, or nothing is said about."""
        rows = DataOptions.parse(values.get("encoding"), values.get("column") or (), values.get("labels"))
        if values.get("data") is None and (said := rows.spoken):
            raise UsageError(f"{said}: it says how to read --data, which is missing; give both or neither")
        given = {found.name: values[found.name] for found in fields(cls) if found.name in values}
        return cls(**(given | {"rows": rows}))


@dataclass(frozen=True)
class Sizes:
    """Rows of the published protocol: the first to train on, the next for dev; eval: of the held-out split."""

    train: int
    dev: int
    eval: int


@dataclass(frozen=True)
class TaskRows:
    """The rows of a run, and where they come from.

    read     rows that there were
    left_out files beside them that were not read
    common   demonstrations before every prompt of train and dev
    own      demonstrations before each prompt of eval, as many sets as it has rows; empty without demonstrations
    """

    train: Sequence[Row]
    dev: Sequence[Row]
    eval: Sequence[Row]
    origin: str
    read: int
    left_out: tuple[str, ...] = ()
    common: Sequence[Row] = ()
    own: Sequence[Sequence[Row]] = ()
    warnings: tuple[str, ...] = ()


class Task(Protocol):
    """One class in one file, and one entry in bench.registry.

    version         goes up with anything that changes what is scored; results of another version never compare
    objective       what a training step scores: cross-entropy over the options, or mean negative log-prob of the right one
    metric          what held-out examples are judged by
    answer_tokens   0: held-out examples are judged by their options; else the most tokens of a generated answer
    sizes           rows of each split
    source          where the data are, in words
    """

    name: ClassVar[str]
    version: ClassVar[int]
    objective: Objective
    metric: Metric
    answer_tokens: int
    sizes: Sizes
    source: str

    @classmethod
    def from_options(cls, options: TaskOptions) -> Task:
        """The task as the user wants it; UsageError for options it has no use for."""

    def read(self, options: TaskOptions, *, offline: bool) -> TaskRows:
        """Checked rows. offline: do not ask the hub. UsageError for what cannot be read or has a wrong value."""

    def generated(self, count: int, split: str, seed: int) -> list[Row]:
        """Rows made up here with the lengths of the real ones; split: train or eval."""

    def prompt(self, row: Row) -> str:
        """What stands before the answer."""

    def options(self, row: Row) -> Sequence[str]:
        """What each answer adds to the prompt; of a generating task the target alone."""

    def right(self, row: Row) -> Sequence[int]:
        """The options that count as right; the first is the one to train towards."""

    def references(self, row: Row) -> Sequence[str]:
        """Answers that a generated one is compared with."""

    def calibration(self, row: Row) -> str | None:
        """The prompt without its content, for scores calibrated by how likely the options are anyway; None has none."""


def make_task(name: str, options: TaskOptions | None = None) -> Task:
    """The task of a name; UsageError when there is none, or for options it has no use for."""
    options = options or TaskOptions()
    task: Task = resolve(TASKS, "--task", name).from_options(options)
    if options.reward is not None and not task.answer_tokens:
        raise UsageError(
            f"--reward {options.reward}: --task {name} has no answers to generate; give a task that has, such as squad, "
            "or rows of your own with --target"
        )
    return task
