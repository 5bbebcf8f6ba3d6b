"""What fewer bits do to the estimate: projected gradients of runs that stood still, on the same directions and minibatches.

`--learning-rate 0` keeps every step at the loaded weights, so that the slopes of two runs differ by their arithmetic alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import sqrt
from statistics import fmean

from analysis.runs import OWN, Run
from bench.errors import UsageError

ARITHMETIC = (*OWN, "dtype")
"""Fields in which a run and its reference may differ."""
WIDTH = {"float32": 0, "float16": 1, "bfloat16": 2}
HEADINGS = ("workload", "eps", "reference", "run", "slopes", "noise / signal", "signs agree", "correlation")


@dataclass(frozen=True)
class Compared:
    """Slopes [steps * queries] of a run and of its reference.

    noise        root mean square of their difference over that of the reference
    signs        share that agree
    correlation  about 0, not about the mean: slopes along random directions have none
    """

    reference: Run
    run: Run
    count: int
    noise: float
    signs: float
    correlation: float


def compared(runs: Sequence[Run]) -> list[Compared]:
    """Each run beside the one of its kind with most bits. UsageError where none stood still or none has another beside it."""
    still = [run for run in runs if run.spec["learning_rate"] == 0 and run.sessions]
    if not still:
        raise UsageError("no run stood still; `python -m bench run --learning-rate 0` makes one")
    kinds: dict[str, dict[tuple[str, ...], Run]] = {}
    for run in still:
        kinds.setdefault(repr(sorted(run.identity(ARITHMETIC).items(), key=str)), {})[run.point(ARITHMETIC)] = run
    found = []
    for kind in kinds.values():
        first, *others = sorted(kind.values(), key=_bits)
        found += [_compare(first, other) for other in others]
    if not found:
        raise UsageError("no two runs differ by their arithmetic alone; change --dtype or --quantization, and nothing else")
    return found


def markdown(found: Sequence[Compared]) -> str:
    """One row a run."""
    rows = [HEADINGS, tuple("---" for _ in HEADINGS)]
    for one in found:
        spec, numbers = one.run.spec, (f"{one.noise:.1%}", f"{one.signs:.0%}", f"{one.correlation:.4f}")
        scope = ", adapter" if spec["scope"] == "adapter" else ""
        rows.append(
            (f"{spec['workload']}{scope}", f"{spec['eps']:g}", _name(one.reference), _name(one.run), str(one.count), *numbers)
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _bits(run: Run) -> tuple[bool, int]:
    return run.spec.get("quantization", "none") != "none", WIDTH[run.spec["dtype"]]


def _name(run: Run) -> str:
    return f"{run.label}, {run.spec['dtype']}"


def _compare(reference: Run, run: Run) -> Compared:
    truth, slopes = (list(chain.from_iterable(one.sessions[-1].projected_gradients)) for one in (reference, run))
    pairs = list(zip(truth, slopes, strict=False))
    signal, moved = (sqrt(fmean(pair[side] ** 2 for pair in pairs)) for side in (0, 1))
    if not signal or not moved:
        raise UsageError(f"{reference.path if not signal else run.path}: every slope is 0")
    noise = sqrt(fmean((found - true) ** 2 for true, found in pairs))
    product = fmean(true * found for true, found in pairs)
    signs = fmean((true > 0) == (found > 0) for true, found in pairs)
    return Compared(reference, run, len(pairs), noise / signal, signs, product / (signal * moved))
