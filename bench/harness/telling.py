"""What a run says as soon as a session knows it: its data, what it trains and how large its forwards are, and every warning."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from bench.journal.events import Event


class Teller:
    """Says everything once, however many sessions and executors report it."""

    def __init__(self, console: Console) -> None:
        self._console, self._said = console, set[str]()

    def __call__(self, run: str, event: Event) -> None:
        """run: which executor's sessions report."""
        if event["event"] == "data" and "rows_read" in event:
            self.say(f"data: {in_one_line(event)}")
        if event["event"] == "data" and event.get("trains"):
            self.say(f"{run}: {moved(event['trains'])}")
        if event["event"] == "loaded" and event.get("max_tokens"):
            self.say(f"{run}: {size(event)}")
        if event["event"] == "warning":
            self.warn(run, event["text"])

    def warn(self, run: str, text: str) -> None:
        self.say(f"{run}: warning: {text}")

    def say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._console.print(text, soft_wrap=True)


def in_one_line(data: dict[str, Any]) -> str:
    """What is trained and judged on: the summary of a TaskData in words."""
    counts = data["examples"]
    used = f"{counts['train']} to train on, {counts['dev']} for dev, {counts['eval']} for evaluation"
    beside = f"; not read: {', '.join(data['left_out'])}" if data.get("left_out") else ""
    return f"{data['task']}, {data['origin']}: {data['rows_read']} rows read, {used}; tokenizer: {data['tokenizer']}{beside}"


def size(loaded: dict[str, Any]) -> str:
    """How a step is divided, in words."""
    forwards = "one forward" if loaded["forwards"] == 1 else f"{loaded['forwards']} forwards"
    return f"a step takes {forwards} of at most {loaded['max_tokens']:,} tokens"


def moved(trains: dict[str, Any]) -> str:
    """What the scope moves of the model: a Trained in words."""
    layers = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in trains["layers"].items())
    return f"trains {trains['parameters']:,} of {trains['of']:,} parameters: {layers}"
