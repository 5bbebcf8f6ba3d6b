"""Efficiency against the number of replicas: measured where they ran, and a model of more from the parts that were measured.

Every replica measures queries of its own, so a step of N replicas costs one of them what a step of one costs, and

    step(N) = max over N of (apply + score) + N m + r + L

apply, score  seconds of a replica in one step, as measured; the largest of N independent draws from what was seen
m             seconds that the driver itself is busy with one replica: packing, sending, receiving
r             what is left of a step of one replica: the way through Ray and back
L             the link: one round trip a step
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from analysis.statistics import Ratio, Sample, ratio
from bench.errors import UsageError

LINKS_MS = (0.1, 1.0, 50.0)
COUNTS = tuple(2**power for power in range(1, 13))
KIND = "scale"


@dataclass(frozen=True)
class Block:
    """Timed steps in a row: with so many replicas, over a link of so many seconds. step_s: of each; busy_s: (apply, score) of the
    replicas in each, longest first; driver_s: seconds a step that the driver was computing."""

    replicas: int
    link_s: float
    round: int
    step_s: list[float]
    busy_s: list[list[list[float]]]
    driver_s: float


@dataclass(frozen=True)
class Parts:
    """What the model is made from. items: seconds of a replica in a step, every one that was measured."""

    items: tuple[float, ...]
    apply_s: float
    message_s: float
    rest_s: float

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Parts:
        """From the blocks of one replica without a link, and from what the driver's seconds grow by with more replicas."""
        single = [block for block in blocks if block.replicas == 1 and block.link_s == 0]
        both = [sum(busy) for block in single for step in block.busy_s for busy in step[:1]]
        walls = [wall - sum(step[0]) for block in single for wall, step in zip(block.step_s, block.busy_s, strict=True)]
        message = median(block.driver_s for block in single)
        applied = fmean(busy[0] for block in single for step in block.busy_s for busy in step[:1])
        return cls(tuple(both), applied, message, max(0.0, fmean(walls) - message))

    def slowest(self, replicas: int) -> float:
        """The expected largest of so many independent draws from the items."""
        ordered, n = np.sort(self.items), len(self.items)
        edges = (np.arange(n + 1) / n) ** replicas
        return float(ordered @ np.diff(edges))

    def step_s(self, replicas: int, link_s: float) -> float:
        return self.slowest(replicas) + replicas * self.message_s + self.rest_s + link_s

    def efficiency(self, replicas: int, link_s: float) -> float:
        """Queries a second and replica, over those of one replica without a link."""
        return self.step_s(1, 0.0) / self.step_s(replicas, link_s)


@dataclass(frozen=True)
class Point:
    """Measured and predicted at one number of replicas and one link."""

    replicas: int
    link_s: float
    step_s: float
    efficiency: Ratio
    predicted: float


@dataclass(frozen=True)
class Scaling:
    path: Path
    facts: Mapping[str, Any]
    blocks: tuple[Block, ...]

    @classmethod
    def read(cls, path: Path) -> Scaling:
        """UsageError for a file that `bench scale` did not write."""
        try:
            data = json.loads(path.read_text())
            if data["kind"] != KIND:
                raise KeyError(KIND)
            return cls(path, data, tuple(Block(**block) for block in data["blocks"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: no measurement of replicas ({error}); `python -m bench scale` makes one") from None

    @property
    def parts(self) -> Parts:
        return Parts.of(self.blocks)

    def points(self) -> list[Point]:
        """Every number of replicas and link that ran; blocks of one round are paired."""
        parts, found = self.parts, []
        base = self._sample(1, 0.0)
        for replicas, link_s in sorted({(block.replicas, block.link_s) for block in self.blocks}):
            sample = self._sample(replicas, link_s)
            measured = ratio(base, sample, "block")
            found.append(Point(replicas, link_s, fmean(sample.values()), measured, parts.efficiency(replicas, link_s)))
        return found

    def _sample(self, replicas: int, link_s: float) -> Sample:
        return {b.round: fmean(b.step_s) for b in self.blocks if (b.replicas, b.link_s) == (replicas, link_s)}


def draw(scaling: Scaling, output: Path) -> None:
    """Lines are predicted, dots measured; a dot stands on its line's colour, with its interval."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from analysis.figures import COLOURS, MARKERS

    parts, points = scaling.parts, scaling.points()
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    counts = (1, *COUNTS)
    links = sorted({link / 1e3 for link in LINKS_MS} | {point.link_s for point in points})
    for i, link_s in enumerate(links):
        colour, name = COLOURS[i], f"{link_s * 1e3:g} ms" if link_s else "no link beside Ray's own"
        axes.plot(counts, [parts.efficiency(n, link_s) for n in counts], color=colour, label=f"predicted, {name}")
        seen = [point for point in points if point.link_s == link_s]
        if seen:
            values = [point.efficiency.value for point in seen]
            low = [value - (point.efficiency.low or value) for value, point in zip(values, seen, strict=True)]
            high = [(point.efficiency.high or value) - value for value, point in zip(values, seen, strict=True)]
            at = [point.replicas for point in seen]
            errors = [np.maximum(low, 0), np.maximum(high, 0)]
            axes.errorbar(at, values, yerr=errors, fmt=MARKERS[i], color=colour, capsize=3, label=f"measured, {name}")
    axes.set(
        xscale="log", xlabel="replicas, each with queries of its own", ylabel="efficiency (1: as one replica)", ylim=(0, 1.15)
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts[::2], [str(n) for n in counts[::2]])
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=7, loc="upper right")
    spec, device = scaling.facts["spec"], scaling.facts["environment"]["device"]
    axes.set_title(f"{spec['workload']} on {spec['executor']}, {spec['model']}, {device}", fontsize=9)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
    plt.close(figure)
