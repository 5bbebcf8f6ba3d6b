"""What every recorder shares: what it is told, and which pass of steps it has to watch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:
    from bench.recorders.buckets import Phases
    from bench.recorders.context import ProfileContext
    from bench.recorders.profile import Profile
    from bench.recorders.timeline import Timeline


class BaseRecorder:
    """A context manager around a pass of steps, then `collect()`. Subclasses set `name`, `version` and `watches`.

    watches    "trace": steps under the shared profiler; "steps": steps of their own without it, for what the profiler would
               disturb; "turns": the same, in turn with something else; None: no steps, the findings are derived or measured apart
    asked      whether it watches only where it is named: what takes longer than all the others together
    scores     by what steps it can say something of are scored: losses, rewards of generated answers, or both
    over       how the findings of several ranks of one model become one: "sum" or "first"; None: it does not look at them
    """

    name: ClassVar[str]
    version: ClassVar[int]
    watches: ClassVar[Literal["trace", "steps", "turns"] | None] = None
    asked: ClassVar[bool] = False
    scores: ClassVar[tuple[str, ...]] = ("losses", "rewards")
    over: ClassVar[Literal["sum", "first"] | None] = None

    def __init__(self, context: ProfileContext, profile: Profile) -> None:
        self.context = context
        self.profile = profile

    @classmethod
    def available(cls, device: str) -> str | None:
        """None where it works on "cpu" or "cuda"; else why not, and how to mend it."""
        return None

    @property
    def on_gpu(self) -> bool:
        return self.context.device.type == "cuda"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def take_turns(self, step: Callable[[], object]) -> None:
        """Make its own steps, each a call, where it watches "turns"."""
        raise NotImplementedError

    def collect(self) -> dict[str, Any]:
        """The findings: plain JSON, in the shape the recorder's module documents."""
        raise NotImplementedError


class TraceRecorder(BaseRecorder):
    """Reads the shared trace of the profiled steps."""

    watches: ClassVar[Literal["trace", "steps", "turns"] | None] = "trace"

    @classmethod
    def available(cls, device: str) -> str | None:
        if device == "cuda":
            from torch.profiler import ProfilerActivity, supported_activities

            if ProfilerActivity.CUDA not in supported_activities():
                return "this build of torch has no CUPTI: install a CUDA build of torch to see GPU kernels"
        return None

    @property
    def timeline(self) -> Timeline:
        """Raises RuntimeError where the profiler saw no step, or no work of a GPU that did some: counts would be made up."""
        timeline = self.profile.timeline
        if not timeline.steps:
            raise RuntimeError("the trace holds no step")
        if self.on_gpu and not timeline.device:
            raise RuntimeError("the trace holds no GPU work: another profiler may hold CUPTI (see doctor)")
        return timeline

    @cached_property
    def phases(self) -> Phases:
        from bench.recorders.buckets import Phases

        return Phases.of(self.context)
