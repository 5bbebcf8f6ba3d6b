"""What runs are compared by: the amortised core step, the seconds of steps until a target is met, or what users waited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis.runs import OWN, Run
from analysis.serving import Served, served, tails_of
from analysis.statistics import Sample
from analysis.summary import Summary, ToTarget, summarize, to_target
from bench.config import RunSpec
from bench.errors import UsageError
from bench.result import SessionResult
from bench.settings import MEASURE, METHOD, settings

SHARED = ("seed", "until", "eval_every", "warmup")
"""Settings that algorithms on their way to the same target have in common."""


@dataclass(frozen=True)
class Metric:
    """A way to compare runs.

    what        a ratio is of, in words
    own         fields of the specification in which the two sides may differ
    of          the sessions of a run that count
    reference   executor, algorithm or policy that ratios are against where the user names none
    times       of a run's sessions; None where they cannot be counted, and `missing` says why
    """

    what: str
    own: tuple[str, ...]
    times: Callable[[list], Summary | ToTarget | Served | None]
    sample: Callable[[Run], Sample]
    kind: type[Summary] | type[ToTarget] | type[Served]
    missing: str
    of: Callable[[Run], list[SessionResult]] = lambda run: run.sessions
    reference: str = "official"

    def counts(self, run: Run) -> bool:
        """Whether a run has something to say, and no session scored wrongly."""
        return bool(self.of(run)) and not run.incorrect


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
    "ttft": Metric(
        "99th percentile of the time to first token",
        OWN,
        served,
        lambda run: tails_of(run.result.pair_id or run.result.id, run.served),
        Served,
        "no user was served",
        of=lambda run: run.served,
        reference="off",
    ),
}


def metric(name: str) -> Metric:
    if name not in METRICS:
        raise UsageError(f"--metric {name}: not known; choose one of {', '.join(METRICS)}")
    return METRICS[name]
