"""What a person sees while sessions run, on stderr: a bar with step, loss, ms/step and time left; plain lines into a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bench.journal.events import Event


class SessionBar:
    """One session's line of the bar; give it the session's events."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def __call__(self, event: Event) -> None:
        if event["event"] == "stage":
            self._progress.update(self._task, stage=event["name"])
        elif event["event"] == "step":
            loss = sum(event["losses"]) / len(event["losses"])
            self._progress.update(self._task, completed=event["step"] + 1, loss=f"{loss:.4f}", ms=f"{event['step_s'] * 1e3:.1f}")


@contextmanager
def session_bar(console: Console, title: str, total: int) -> Iterator[SessionBar]:
    """A bar over `total` steps, gone when it closes; it stays away where stderr is no terminal that can move its cursor."""
    text = partial(TextColumn, markup=False)
    columns = (
        text("{task.description}"),
        text("{task.fields[stage]}"),
        BarColumn(),
        MofNCompleteColumn(),
        text("loss {task.fields[loss]}"),
        text("{task.fields[ms]} ms/step"),
        text("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        yield SessionBar(progress, progress.add_task(title, total=total, stage="start", loss="-", ms="-"))
