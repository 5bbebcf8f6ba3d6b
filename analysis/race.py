"""Races: what each algorithm took to the target, in steps and scored minibatches, and which differences are significant.

A run that did not get there within its budget is censored: it took more than that, and nobody knows how much. Medians and their
intervals stay defined as long as enough seeds got there: the interval is that of the order statistics (of five seeds the smallest
and the largest, which hold the median with 93.75 %). Two algorithms are compared seed by seed, for a seed gives both the same
minibatches: Student's t on the logarithms where all got there, with the uncertainty of looking at the dev split only now and then
added, else the sign test. Holm's correction (1979) is for comparing many with the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, inf, isfinite, log
from pathlib import Path

import numpy as np
from scipy import stats

from analysis.statistics import LEVEL
from analysis.summary import digits
from bench.raced import Heat, Race, read_race

AXES = {"steps": "step", "minibatches": "forwards", "seconds": "seconds"}
"""What a race is measured along -> the field of bench.result.Reached."""


@dataclass(frozen=True)
class Middle:
    """A median with the interval of the order statistics; inf where too many runs are censored. coverage: of the interval."""

    value: float
    low: float
    high: float
    coverage: float


@dataclass(frozen=True)
class Against:
    """How much more an algorithm took than the first. ratio, low, high: None where a run is censored; p is Holm's."""

    ratio: float | None
    low: float | None
    high: float | None
    p: float
    ahead: int
    seeds: int

    @property
    def significant(self) -> bool:
        return self.p < 1 - LEVEL

    @property
    def words(self) -> str:
        found = f"more in {self.ahead} of {self.seeds} seeds"
        if self.ratio is not None:
            found = f"{self.ratio:.2f}x, {self.low:.2f} to {self.high:.2f}"
        return f"{found}{', significant' if self.significant else ''}"


@dataclass(frozen=True, eq=False)
class Entrant:
    """One algorithm in a race: its heats by seed, and the runs its settings were picked by."""

    race: Race
    workload: str
    heats: tuple[Heat, ...]
    tuning: tuple[Heat, ...]

    def along(self, axis: str) -> dict[int, float]:
        """Seed -> what it took to the target; inf where it did not get there."""
        return {h.seed: float(getattr(h.reached, AXES[axis])) if h.reached else inf for h in self.heats}

    def middle(self, axis: str) -> Middle:
        return middle(list(self.along(axis).values()))

    @property
    def there(self) -> int:
        return sum(heat.reached is not None for heat in self.heats)

    @property
    def budget(self) -> int:
        return max(heat.budget for heat in self.heats)

    @property
    def per_step(self) -> float:
        """Minibatches scored in a step."""
        return next((m.forwards / m.step for h in self.heats for m in h.marks), 1.0)

    @property
    def memory(self) -> int | None:
        """Bytes at the peak of a step."""
        return next((sum(h.memory.values()) for h in self.heats if h.memory), None)

    @property
    def held_out(self) -> float | None:
        found = [h.held_out for h in self.heats if h.held_out is not None]
        return float(np.median(found)) if found else None

    @property
    def grid(self) -> list[float]:
        """Dev loss at the end of each run of the grid, the lowest first; inf where a run broke."""
        return sorted(h.marks[-1].loss if h.status == "passed" and h.marks else inf for h in self.tuning)

    @property
    def on_the_edge(self) -> bool:
        """Whether the settings picked are the highest or lowest learning rate of the grid."""
        rates = sorted({h.learning_rate for h in self.tuning})
        return len(rates) > 1 and self.heats[0].learning_rate in (rates[0], rates[-1])


@dataclass(frozen=True, eq=False)
class Standing:
    """A race with its entrants, the one with the fewest minibatches first."""

    race: Race
    entrants: tuple[Entrant, ...]

    @property
    def title(self) -> str:
        s = self.race.spec
        device = self.race.environment.get("device")
        return f"{s['task']} on {s['model']}, {s['executor']}, {device}, to {s['until']} of the dev split"

    @cached_property
    def against(self) -> Mapping[str, Against]:
        """Workload -> its minibatches beside the first's."""
        first, others = self.entrants[0], self.entrants[1:]
        every = float(self.race.spec["eval_every"])
        found = {
            e.workload: compared(first.along("minibatches"), e.along("minibatches"), _looks(first, e, every)) for e in others
        }
        return dict(zip(found, holm(list(found.values())), strict=True))


def load(paths: Sequence[str | Path]) -> list[Standing]:
    """Race files, in the order given. UsageError for one that cannot be read."""
    return [standing(read_race(path)) for path in paths]


def standing(race: Race) -> Standing:
    names = dict.fromkeys(heat.workload for heat in race.heats if not heat.tuning)
    entrants = []
    for name in names:
        own = [heat for heat in race.heats if heat.workload == name]
        heats = tuple(sorted((h for h in own if not h.tuning), key=lambda h: h.seed))
        entrants.append(Entrant(race, name, heats, tuple(h for h in own if h.tuning)))
    return Standing(race, tuple(sorted(entrants, key=_rank)))


def middle(values: Sequence[float]) -> Middle:
    """The median of values some of which may be inf. ValueError for none."""
    if not values:
        raise ValueError("no runs")
    ordered, n = sorted(values), len(values)
    outside = [2 * float(stats.binom.cdf(left_out, n, 0.5)) for left_out in range((n + 1) // 2)]
    cut = max((left_out for left_out, missed in enumerate(outside) if missed <= 1 - LEVEL), default=0)
    value = ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2
    return Middle(value, ordered[cut], ordered[n - 1 - cut], 1 - outside[cut])


def compared(first: Mapping[int, float], other: Mapping[int, float], looks: tuple[float, float]) -> Against:
    """Of the seeds that both have; p is not corrected yet. looks: how far apart the looks at the dev split were, of both."""
    seeds = [seed for seed in first if seed in other]
    a, b = (np.array([of[seed] for seed in seeds]) for of in (first, other))
    behind, n = int((b > a).sum()), len(seeds)
    if n < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        decided = int((a != b).sum())
        p = float(stats.binomtest(behind, decided).pvalue) if decided else 1.0
        return Against(None, None, None, p, behind, n)
    gains = np.log(b) - np.log(a)
    unseen = np.mean((looks[0] / a) ** 2 + (looks[1] / b) ** 2) / 12  # the target was met somewhere since the look before
    error = float(np.sqrt((np.var(gains, ddof=1) + unseen) / n))
    mean, half = float(gains.mean()), float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return Against(exp(mean), exp(mean - half), exp(mean + half), p, behind, n)


def holm(found: Sequence[Against]) -> list[Against]:
    """The same with p corrected for how many there are."""
    order = sorted(range(len(found)), key=lambda i: found[i].p)
    corrected, least = [0.0] * len(found), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, (len(found) - place) * found[i].p))
        corrected[i] = least
    return [Against(f.ratio, f.low, f.high, p, f.ahead, f.seeds) for f, p in zip(found, corrected, strict=True)]


HEADINGS = (
    "algorithm",
    "learning rate",
    "eps",
    "got there",
    "steps, median",
    "interval",
    "minibatches scored",
    "beside the first",
    "steps, s",
    "peak memory, MB",
    "held out",
    "dev loss over the grid",
)


def cells(standing: Standing, entrant: Entrant) -> tuple[str, ...]:
    """A row in the order of HEADINGS."""
    steps, first = entrant.middle("steps"), entrant.heats[0]
    there, memory, held_out = f"{entrant.there} of {len(entrant.heats)}", entrant.memory, entrant.held_out
    against = standing.against.get(entrant.workload)
    grid = f"{_loss(entrant.grid[0])} to {_loss(entrant.grid[-1])}" if entrant.grid else "-"
    return (
        entrant.workload,
        f"{first.learning_rate:g}{' (edge)' if entrant.on_the_edge else ''}",
        f"{first.eps:g}",
        there,
        spelled(steps.value, entrant.budget),
        f"{spelled(steps.low, entrant.budget)} to {spelled(steps.high, entrant.budget)}",
        spelled(entrant.middle("minibatches").value, entrant.budget * entrant.per_step),
        "-" if not standing.entrants[0].there else against.words if against else "first",
        spelled(entrant.middle("seconds").value, None),
        "-" if memory is None else f"{memory / 1e6:.2f}",
        "-" if held_out is None else f"{held_out:.3f}",
        grid,
    )


def spelled(value: float, budget: float | None) -> str:
    """A number, or that it is more than the budget."""
    return digits(value, 3) if isfinite(value) else "-" if budget is None else f"> {budget:.0f}"


def reading(standing: Standing) -> Iterator[str]:
    """What the table says, in sentences."""
    first, others = standing.entrants[0], standing.entrants[1:]
    n, coverage = len(first.heats), first.middle("steps").coverage
    yield f"{n} seeds; intervals of medians are those of the order statistics and hold them with {coverage:.1%}"
    if first.there:
        behind = [e.workload for e in others if standing.against[e.workload].significant]
        rest = [e.workload for e in others if not standing.against[e.workload].significant]
        yield f"fewest minibatches to the target: {first.workload}; significantly more (Holm, 5 %): {', '.join(behind) or 'none'}"
        yield f"not told apart from it: {', '.join(rest) or 'none'}"
    else:
        yield "nobody got to the target"
    short = [f"{e.workload} ({len(e.heats) - e.there} of {len(e.heats)})" for e in standing.entrants if e.there < len(e.heats)]
    if short:
        yield f"censored, did not get there within their steps: {', '.join(short)}"
    middles = [e.middle("steps").value for e in standing.entrants if isfinite(e.middle("steps").value)]
    if middles:
        yield f"steps at the settings picked: {max(middles) / min(middles):.1f}x between the slowest and the fastest algorithm"
    tuned = [e for e in standing.entrants if e.grid and isfinite(e.grid[0])]
    if tuned:
        low, high = (of(e.grid[0] for e in tuned) for of in (min, max))
        wider = [e.workload for e in tuned if e.grid[-1] - e.grid[0] > high - low]
        steps = tuned[0].tuning[0].budget
        yield f"dev loss after {steps} steps: {low:.3f} to {high:.3f} between algorithms at their best settings"
        yield f"the grid of one algorithm spreads further than that, tuning mattered more: {', '.join(wider) or 'for none'}"
    if edge := [e.workload for e in standing.entrants if e.on_the_edge]:
        yield f"settings at the edge of the grid, a wider one may do better: {', '.join(edge)}"


def _loss(value: float) -> str:
    return f"{value:.3f}" if isfinite(value) else "broke"


def rendered(standings: Sequence[Standing]) -> Iterator[object]:
    """Tables and lines for a terminal."""
    from rich.table import Table

    for found in standings:
        table = Table(*HEADINGS, title=found.title)
        for entrant in found.entrants:
            table.add_row(*cells(found, entrant))
        yield table
        yield from reading(found)


def markdown(standings: Sequence[Standing]) -> str:
    """The same as GitHub Markdown."""
    parts = []
    for found in standings:
        rows = [HEADINGS, tuple("---" for _ in HEADINGS), *(cells(found, entrant) for entrant in found.entrants)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append("\n\n".join([f"**{found.title}**", table, "\n".join(f"- {line}" for line in reading(found))]))
    return "\n\n".join(parts)


def _rank(entrant: Entrant) -> tuple[float, int, float]:
    """By the median, then by how many got there, then by the mean logarithm, censored runs at their budget."""
    values = entrant.along("minibatches").values()
    bounded = [log(value if isfinite(value) else entrant.budget * entrant.per_step) for value in values]
    return entrant.middle("minibatches").value, -entrant.there, float(np.mean(bounded))


def _looks(first: Entrant, other: Entrant, every: float) -> tuple[float, float]:
    return every * first.per_step, every * other.per_step
