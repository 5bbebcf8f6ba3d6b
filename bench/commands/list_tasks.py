"""The tasks in a table: where their data are, what is trained and judged, and how long prompts and answers are."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from rich.table import Table

from bench.errors import UsageError
from bench.registry import TASKS
from workloads.tasks.task import Task, make_task

SAMPLE = 200
"""Generated rows that lengths are taken from."""


def task_table() -> Table:
    """Lengths in words, of the generated stand-in that every task has: nothing is downloaded, no model is loaded."""
    lengths = "words, median, mean, most"
    places = ("task", "data", "trained by", "judged by", "train, dev, eval")
    table = Table(*places, f"prompt: {lengths}", "answers", f"answer: {lengths}", title="Tasks")
    for name in TASKS:
        try:
            task = make_task(name)
        except UsageError as error:  # it lives on options of the user's, or its package is broken
            table.add_row(name, str(error).partition(": ")[2])
        else:
            table.add_row(name, *_row(task))
    return table


def _row(task: Task) -> list[str]:
    rows = task.generated(SAMPLE, "eval", 0)
    answers = [task.options(row) for row in rows]
    sizes = f"{task.sizes.train}, {task.sizes.dev}, {task.sizes.eval}"
    prompts = _spread([len(task.prompt(row).split()) for row in rows])
    least, most = min(map(len, answers)), max(map(len, answers))
    counts = "generated" if task.answer_tokens else str(least) if least == most else f"{least} to {most}"
    return [
        task.source,
        task.objective,
        task.metric,
        sizes,
        prompts,
        counts,
        _spread([len(option.split()) for options in answers for option in options]),
    ]


def _spread(counts: Sequence[int]) -> str:
    return f"{median(counts):.0f}, {fmean(counts):.0f}, {max(counts)}"
