"""Exact counts of a core step, derived and the same on every machine.

Findings, per step:
    probes      parameter states scored
    work        the executor's own counts (`Executor.work`): forwards, rows, tokens_scored (padding included), tokens_real,
                head_rows, weight_bytes_written, fold_bytes_written, adapter_bytes_written, host_syncs; tokens_read where
                no other token takes the last layer whole
    flops       of the forward passes made, padding included: linear, attention, head, total
    required    the least any executor must do: tokens, read (of them), rows, head_rows, words (different rows of the head), and
                flops as above; null where answers are generated, whose lengths are known afterwards only
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, Literal

from bench.recorders.base import BaseRecorder
from bench.recorders.shapes import ModelShapes, Required, made


class Counters(BaseRecorder):
    """Forwards, tokens, bytes and FLOPs per step (see the module for the shape)."""

    name: ClassVar[str] = "counters"
    version: ClassVar[int] = 2
    over: ClassVar[Literal["sum", "first"] | None] = "first"

    def collect(self) -> dict[str, Any]:
        context = self.context
        work = context.work()
        shapes = ModelShapes.of(context.source)
        found = {"probes": len(context.probes), "work": work, "flops": made(shapes, work), "required": None}
        if context.spec.reward is None:
            required = Required.of(context.batch, len(context.probes))
            found["required"] = asdict(required) | {"flops": required.flops(shapes)}
        return found
