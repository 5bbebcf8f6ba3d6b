"""Stops a run whose probes all score the same: nothing it trains reaches what is scored."""

from __future__ import annotations

from collections.abc import Sequence

PATIENCE = {"float32": 3, "float16": 20, "bfloat16": 20}
"""Steps in a row with bit-identical losses that are no chance any more: losses of 16-bit models come in coarse steps."""


class Unmoved(Exception):
    """The probes of several steps had the same losses to the last bit."""


class Watch:
    """Give it the losses of every step; it raises Unmoved."""

    def __init__(self, dtype: str) -> None:
        self._patience, self._alike = PATIENCE[dtype], 0

    def __call__(self, step: int, losses: Sequence[float]) -> None:
        self._alike = self._alike + 1 if len(losses) > 1 and len(set(losses)) == 1 else 0
        if self._alike == self._patience:
            raise Unmoved(
                f"steps {step - self._patience + 1} to {step}: all probes have the same loss to the last bit, so no perturbation "
                "reaches what is scored; raise --eps, use a wider --dtype, or check what --scope trains"
            )
