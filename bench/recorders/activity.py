"""One piece of work in a trace: when it ran, under which names, and which ranges were around it. Times are microseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from bench.api import MARK

STEP, WARMUP = "zo.step", "zo.warmup"
GRAPH_LAUNCH = re.compile(r"^(cuda|cu)GraphLaunch")
Interval = tuple[float, float]


@dataclass(slots=True, eq=False)
class Activity:
    """One operator call on the CPU, or one kernel, copy or fill on a GPU.

    names      names of the operators around it, outermost first, its own last
    ranges     `zo.*` ranges around it, outermost first; for GPU work, around the call that launched it
    launched   when the host called it: the start of an operator, of GPU work that of the call that launched it
    spans      when it ran: of an operator, the parts in which no operator inside it ran; of GPU work, one interval
    parent     the operator around an operator
    leaf       no operator ran inside it
    inputs     (shape, type) of the arguments of an operator, where the trace has them
    graph      number of the graph launch that GPU work belongs to; None where the host launched it by itself
    placed     whether work of a graph was told by its order (`bench.recorders.recorded`)
    """

    kind: Literal["operator", "kernel", "memcpy", "memset"]
    names: tuple[str, ...]
    ranges: tuple[str, ...]
    start: float
    end: float
    launched: float
    spans: list[Interval] = field(default_factory=list)
    parent: Activity | None = None
    leaf: bool = True
    inputs: tuple[tuple[list[int], str], ...] = ()
    graph: int | None = None
    placed: bool = False

    @property
    def name(self) -> str:
        return self.names[-1]

    @property
    def phase(self) -> str | None:
        """The innermost phase (perturb, score, update, fold, host) around it."""
        return next((r[3:] for r in reversed(self.ranges) if not r.startswith((MARK, STEP, WARMUP))), None)

    @property
    def mark(self) -> str | None:
        """The bucket named by the innermost `bench.api.mark` around it."""
        return next((r[len(MARK) :] for r in reversed(self.ranges) if r.startswith(MARK)), None)
