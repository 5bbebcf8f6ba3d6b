"""Exact counts of a core step, derived and the same on every machine.

Findings, per step:
    probes      parameter states scored
    work        the executor's own counts (`Executor.work`): forwards, rows, tokens_scored (padding included), tokens_real,
                head_rows, weight_bytes_written, fold_bytes_written, adapter_bytes_written, host_syncs
    flops       of the forward passes made, padding included: linear, attention, head, total
    required    the least any executor must do: tokens, rows, head_rows, words (different rows of the head), and flops as above;
                null where answers are generated, whose lengths are known afterwards only
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, Literal

from bench.recorders.base import BaseRecorder
from bench.recorders.shapes import ModelShapes, Required


class Counters(BaseRecorder):
    """Forwards, tokens, bytes and FLOPs per step (see the module for the shape)."""

    name: ClassVar[str] = "counters"
    version: ClassVar[int] = 1
    over: ClassVar[Literal["sum", "first"] | None] = "first"

    def collect(self) -> dict[str, Any]:
        context = self.context
        work = context.executor.work(context.batch, context.probes)
        shapes = ModelShapes.of(context.source)
        flops = shapes.flops(work["tokens_scored"], work["rows"], work["head_rows"])
        found = {"probes": len(context.probes), "work": work, "flops": flops, "required": None}
        if context.spec.reward is None:
            required = Required.of(context.batch, len(context.probes))
            found["required"] = asdict(required) | {"flops": shapes.flops(required.tokens, required.rows, required.head_rows)}
        return found
