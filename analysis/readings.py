"""What a feature brings, read twice on a GPU: where the host is the limit, and where whole passes are recorded, as deployed.

Uncompiled, kernels are launched one by one; a short one is over before the next is there, and work that a feature saves then
saves no time. Recorded, the same kernels are one launch. Both readings are Shapley values over the three features, and each
multiplies to its own total. How far a feature's share differs is one contrast again: its interaction with the runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.attribution import shapley, subsets
from analysis.points import FEATURES, HOST_LIMITED, NAMES, RECORDED, corners, groups
from analysis.runs import Run
from analysis.statistics import Ratio, contrasts

READINGS = {HOST_LIMITED: "host-limited (uncompiled)", RECORDED: "as deployed (graphs)"}


@dataclass(frozen=True)
class Readings:
    """shares, totals: by variant; changes: a feature's ratio as deployed over its ratio host-limited; idle: share of a profiled
    step in which the GPU waits, by variant, empty where points were not profiled."""

    model: str
    shares: Mapping[str, Mapping[str, Ratio]]
    totals: Mapping[str, Ratio]
    changes: Mapping[str, Ratio]
    idle: Mapping[str, float]

    @property
    def lines(self) -> list[str]:
        """A line for each reading, and one that says what differs and why."""
        found = []
        for variant, title in READINGS.items():
            parts = [f"{NAMES[f].split(':')[0]} {r.value:.2f} ({r.interval})" for f, r in self.shares[variant].items()]
            found.append(f"{self.model}, {title}: {', '.join(parts)}; all three {self.totals[variant].value:.2f}")
        return [*found, self.difference]

    @property
    def difference(self) -> str:
        apart = {f: r for f, r in self.changes.items() if r.significant}
        if not apart:
            return "no feature's share differs between the two readings by more than the noise"
        feature = max(apart, key=lambda f: abs(np.log(apart[f].value)))
        before, after = (self.shares[variant][feature].value for variant in READINGS)
        return (
            f"{NAMES[feature]} differs most, {before:.2f} host-limited and {after:.2f} as deployed: {self._why(before < after)}"
        )

    def _why(self, grows: bool) -> str:
        if not self.idle:
            return "why is not known without profiled passes (leave --no-profile out)"
        waits = " and ".join(f"{share:.0%} of a step {READINGS[variant]}" for variant, share in self.idle.items())
        saved = "work that it saves shows only where the GPU is busy" if grows else "launches that it saves cost only the host"
        return f"the GPU waits for launches {waits}; {saved}"


def readings(runs: Iterable[Run]) -> list[Readings]:
    """Of every interleaved run that has both factorials."""
    found = []
    for group in groups(runs):
        squares = {variant: corners(group, "vllm", FEATURES, variant) for variant in READINGS}
        if all(squares.values()):
            found.append(_read({variant: list(square.values()) for variant, square in squares.items()}))
    return found


def _read(squares: Mapping[str, Sequence[Run]]) -> Readings:
    points, features = [run for square in squares.values() for run in square], len(FEATURES)
    size, weights = len(subsets(FEATURES)), shapley(FEATURES)
    nothing, whole = np.zeros_like(weights), np.zeros((1, size))
    whole[0, 0], whole[0, -1] = -1, 1
    rows = [np.hstack([weights, nothing]), np.hstack([nothing, weights]), np.hstack([-weights, weights])]
    rows += [np.hstack([whole, 0 * whole]), np.hstack([0 * whole, whole])]
    found = contrasts([run.sample for run in points], np.vstack(rows), "block")
    named = [dict(zip(FEATURES, found[at * features :], strict=False)) for at in range(3)]
    shares, totals = dict(zip(READINGS, named, strict=False)), dict(zip(READINGS, found[-2:], strict=True))
    return Readings(points[0].spec["model"], shares, totals, named[2], _idle(squares))


def _idle(squares: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    found = {}
    for variant, square in squares.items():
        profiles = [p for run in square if (p := run.finding("time_breakdown"))]
        if len(profiles) < len(square):
            return {}
        found[variant] = sum(p["idle_s"] for p in profiles) / sum(p["span_s"] for p in profiles)
    return found
