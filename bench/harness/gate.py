"""No speed without correctness: before anything is timed, one batch is scored and compared with a float32 reference.

Tolerance. float32: 2e-5 times the size of the loss (1e-4 on a GPU, whose kernels sum in another order). 16 bits: twice the error
that a plain Hugging Face forward in that same dtype has against float32, plus four units in the last place of the loss. FP8: the
same for a forward that rounds the inputs of its products to FP8, against one in float32 with the same FP8 weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.api import Executor, Probe
from bench.config import RunSpec
from bench.data import Batch, Minibatches
from bench.result import Check

if TYPE_CHECKING:
    import torch

FLOAT32_TOLERANCE = {"cpu": 2e-5, "cuda": 1e-4}
UNIT = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "fp8": 2.0**-10}


@dataclass(frozen=True)
class Expected:
    """What one batch should score: losses [n_probes] and the largest difference allowed."""

    batch: Batch
    probes: tuple[Probe, ...]
    losses: Sequence[float]
    tolerance: float


def expected(
    reference: Callable[[Batch, Sequence[Probe], str], torch.Tensor],
    batch: Batch,
    probes: tuple[Probe, ...],
    dtype: str,
    device: str,
) -> Expected:
    """`reference(batch, probes, dtype)` gives the plain losses in a dtype, for fp8 with rounded products. Of a step that
    accumulates, two minibatches do."""
    batch = Minibatches(batch.parts[:2]) if isinstance(batch, Minibatches) else batch
    truth = reference(batch, probes, "float32").tolist()
    scale = max(1.0, *map(abs, truth))
    if dtype == "float32":
        return Expected(batch, probes, truth, FLOAT32_TOLERANCE[device] * scale)
    same = reference(batch, probes, dtype).tolist()
    return Expected(batch, probes, truth, 2 * _largest(same, truth) + 4 * UNIT[dtype] * scale)


@contextmanager
def by_losses(executor: Executor, spec: RunSpec) -> Iterator[None]:
    """Whatever the run trains by, its states are scored by the task's own objective meanwhile."""
    if spec.reward is None:
        yield
        return
    executor.switch(replace(spec, reward=None))
    yield
    executor.switch(spec)


def check(executor: Executor, expect: Expected) -> tuple[Check, str | None]:
    """The check, and a warning when it could not have told the two sides of a probe apart."""
    saved = executor.snapshot() if executor.leaves_residue else None
    found = executor.score(expect.batch, expect.probes).tolist()
    if saved is not None:
        executor.restore(saved)
    value = _largest(found, expect.losses)
    detail = f"losses {_short(found)}, reference {_short(expect.losses)}"
    spread = max(expect.losses) - min(expect.losses)
    blunt = spread <= expect.tolerance
    warning = (
        f"the probes' losses differ by {spread:.1e} only, less than the {expect.tolerance:.1e} that this dtype is allowed: "
        "the check covers the forward pass, not the perturbation; a larger --eps would cover both"
    )
    finite = value if math.isfinite(value) else None
    return Check("losses", value <= expect.tolerance, finite, expect.tolerance, detail), warning if blunt else None


def _largest(found: Sequence[float], truth: Sequence[float]) -> float:
    differences = [abs(a - b) for a, b in zip(found, truth, strict=True)]
    return max(differences) if all(map(math.isfinite, differences)) else math.inf


def _short(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.6f}" for value in values) + "]"
