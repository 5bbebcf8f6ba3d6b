"""What a session reports, one small JSON object at a time. The parent adds them up, so whatever a dead session had seen is kept.

Kinds (`event`) and their other fields:
    stage       name: load, check, replay, warmup, timed, checksum, checkpoint, evaluate, profile
    stages      seconds spent in each of them
    step        step, step_s, kind, losses, projected_gradients, warmup; seed, epoch (of V), learning_rate
    check, evaluation, reached               the fields of bench.result.Check, Evaluation and Reached
    checksum, snapshot                       the fields of bench.journal.entries.ChecksumEntry and SnapshotEntry
    resumed     step: another process goes on from here
    published, examples                      of a server: the fields of PublishedEntry and ExamplesEntry; served: version
    loaded      load_s, fold_every, max_tokens, forwards (of a step)
    data, details                            facts, plain JSON
    findings    name -> what a recorder found
    warning     text
    error       status, text; usage is true when the input was bad, outside when the machine was: its memory, its disk
    done        the session came to its end
    ended       wall_s of the process, from its parent
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.result import Check, Evaluation, Reached, SessionResult, Status

Event = dict[str, Any]
Emit = Callable[[Event], None]


def plain(value: Any) -> Any:
    """The same value as strict JSON: tuples become lists, numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


@dataclass
class SessionLog:
    """Adds up the events of one session. resumable: what ended it need not end it again."""

    index: int
    stage: str = "start"
    finished: bool = False
    usage_error: str | None = None
    resumable: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    _status: Status = "passed"
    _error: str | None = None
    _reached: Reached | None = None
    _load_s: float | None = None
    _wall_s: float | None = None
    _fold_every: int | None = None
    _stages_s: dict[str, float] = field(default_factory=dict)
    _steps: list[Event] = field(default_factory=list)
    _checks: list[Check] = field(default_factory=list)
    _evaluations: list[Evaluation] = field(default_factory=list)
    _findings: dict[str, Any] = field(default_factory=dict)
    _details: dict[str, Any] = field(default_factory=dict)
    _warnings: list[str] = field(default_factory=list)

    def add(self, event: Event) -> None:
        fields = dict(event)
        match fields.pop("event"):
            case "stage":
                self.stage = fields["name"]
            case "step":
                self._steps.append(fields)
            case "check":
                check = Check(**fields)
                self._checks.append(check)
                if not check.passed:
                    size = "not finite" if check.value is None else f"{check.value:.1e}"
                    self.fail(
                        "incorrect", f"check {check.name}: difference {size}, allowed {check.tolerance:.1e}; {check.detail}"
                    )
            case "evaluation":
                self._evaluations.append(Evaluation(**fields))
            case "reached":
                self._reached = Reached(**fields)
            case "loaded":
                self._load_s, self._fold_every = fields["load_s"], fields.get("fold_every")
            case "stages":
                self._stages_s.update(fields)
            case "ended":
                self._wall_s = fields["wall_s"]
            case "data":
                self.data.update(fields)
            case "details":
                self._details.update(fields)
            case "findings":
                self._findings.update(fields)
            case "warning":
                self.warn(fields["text"])
            case "resumed":
                self._begin_again(fields["step"])
            case "error":
                self._status, self._error = fields["status"], fields["text"]
                self.usage_error = self._error if fields.get("usage") else None
                self.resumable = bool(fields.get("outside") and self._steps)
            case "done":
                self.finished = True

    @property
    def failed(self) -> bool:
        return self._error is not None

    @property
    def where(self) -> str:
        """How far the session came, in words."""
        return f"step {self._steps[-1]['step']}" if self._steps and self.stage in ("warmup", "timed") else f"stage {self.stage}"

    def fail(self, status: Status, text: str) -> None:
        self._status, self._error = status, text

    def cut_short(self, status: Status, text: str) -> None:
        """Ended from outside, in the middle."""
        self.fail(status, text)
        self.resumable = True

    def warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.append(text)

    def _begin_again(self, step: int) -> None:
        """Loading and checking happen again; steps and evaluations stay."""
        self._status, self._error, self.finished, self.usage_error, self.resumable = "passed", None, False, None, False
        self._checks.clear()
        before = self._details.get("resumed_at", [])
        self._details = {"resumed_at": [*before, step]}
        self.warn("the session was interrupted and resumed: its step times come from several processes, some of them cold")

    def result(self) -> SessionResult:
        steps, details = self._steps, dict(self._details)
        kinds = [s["kind"] for s in steps if s.get("kind")]
        return SessionResult(
            index=self.index,
            status=self._status,
            load_s=self._load_s,
            warmup_s=[s["step_s"] for s in steps if s["warmup"]],
            step_s=[s["step_s"] for s in steps if not s["warmup"]],
            kinds=kinds if len(kinds) == len(steps) else [],
            fold_every=self._fold_every,
            losses=[s["losses"] for s in steps],
            projected_gradients=[s["projected_gradients"] for s in steps],
            evaluations=self._evaluations,
            reached=self._reached,
            findings=self._findings,
            checks=self._checks,
            stages_s=self._stages_s,
            wall_s=self._wall_s,
            model_runner=details.pop("model_runner", None),
            details=details,
            warnings=self._warnings,
            error=self._error,
        )
