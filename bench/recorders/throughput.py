"""How near a step that generates comes to inference alone: the share of its throughput that training reaches.

Steps of its own, each followed by pure generation: the same prompts as often as the step has states, answers of the same lengths,
the weights as they are; no adapter, no reward, no update. Both make the same tokens, so times alone are compared, pair by pair.

Findings:
    pairs                   how many
    step_s, inference_s     seconds of each, pair by pair
    tokens                  generated in each pair
    share                   median of inference_s / step_s
    tokens_per_s            generated in training, over all pairs; inference_tokens_per_s: in pure generation
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from bench.recorders.base import BaseRecorder

AT_LEAST_S, FEWEST, MOST = 3.0, 10, 60


class Throughput(BaseRecorder):
    """Training's share of the throughput of inference (see the module for the shape)."""

    name: ClassVar[str] = "throughput"
    version: ClassVar[int] = 1
    watches: ClassVar[Literal["trace", "steps", "turns"] | None] = "turns"
    scores: ClassVar[tuple[str, ...]] = ("rewards",)

    def take_turns(self, step: Callable[[], object]) -> None:
        from bench.recorders.profile import synchronize

        context, executor = self.context, self.context.executor
        self._pairs: list[tuple[float, float, int]] = []
        pairs = min(MOST, max(FEWEST, math.ceil(AT_LEAST_S / context.timed_step_s)))
        for number in range(pairs + 1):
            began = time.perf_counter()
            step()
            synchronize(context.device)
            between = time.perf_counter()
            tokens = executor.infer(context.batch)
            synchronize(context.device)
            if number:  # the first pair warms both up
                self._pairs.append((between - began, time.perf_counter() - between, tokens))

    def collect(self) -> dict[str, Any]:
        steps, alone, tokens = (list(column) for column in zip(*self._pairs, strict=True))
        return {
            "pairs": len(steps),
            "step_s": steps,
            "inference_s": alone,
            "tokens": tokens,
            "share": statistics.median(a / s for s, a in zip(steps, alone, strict=True)),
            "tokens_per_s": sum(tokens) / sum(steps),
            "inference_tokens_per_s": sum(tokens) / sum(alone),
        }
