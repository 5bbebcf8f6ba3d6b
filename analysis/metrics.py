"""What runs are compared by: the amortised core step, or the seconds of steps until a target is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis.runs import OWN, Run
from analysis.statistics import Sample
from analysis.summary import Summary, ToTarget, summarize, to_target
from bench.config import MEASURE, METHOD, RunSpec, settings
from bench.errors import UsageError

SHARED = ("seed", "until", "eval_every", "warmup")
"""Settings that algorithms on their way to the same target have in common."""


@dataclass(frozen=True)
class Metric:
    """A way to compare runs.

    what        a ratio is of, in words
    own         fields of the specification in which the two sides may differ
    times       of a run's sessions; None where they cannot be counted, and `missing` says why
    """

    what: str
    own: tuple[str, ...]
    times: Callable[[list], Summary | ToTarget | None]
    sample: Callable[[Run], Sample]
    kind: type[Summary] | type[ToTarget]
    missing: str


def _settings() -> tuple[str, ...]:
    found = settings(RunSpec).items()
    return tuple(name for name, s in found if s.panel in (METHOD, MEASURE) and name not in SHARED)


METRICS = {
    "step": Metric("amortised step", OWN, summarize, lambda run: run.sample, Summary, "no timed session"),
    "time-to-target": Metric(
        "time to the target",
        (*OWN, "workload", *_settings()),
        to_target,
        lambda run: {key: s.reached.seconds for key, s in zip(run.sample, run.sessions, strict=True) if s.reached},
        ToTarget,
        "the target was not reached in every session",
    ),
}


def metric(name: str) -> Metric:
    if name not in METRICS:
        raise UsageError(f"--metric {name}: not known; choose one of {', '.join(METRICS)}")
    return METRICS[name]
