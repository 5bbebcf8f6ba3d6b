"""Gradient quality drawn: the cosine between estimate and true gradient over the minibatches that were scored for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from analysis.figures import COLOURS, MARKERS
from analysis.runs import Run
from bench.errors import UsageError

matplotlib.use("agg")

RECORDER = "gradient_quality"
HEADINGS = ("algorithm", "minibatches", "cosine", "of 16 averaged", "signs agree", "slopes off by", "noise / signal")


def watched(runs: Sequence[Run]) -> list[Run]:
    """The newest run of each algorithm, rank and number of queries that the recorder watched. UsageError for none."""
    found = {name(run): run for run in runs if run.finding(RECORDER)}
    if not found:
        raise UsageError(f"no run was watched by it; `python -m bench run --record {RECORDER}` makes one")
    return list(found.values())


def name(run: Run) -> str:
    """`lozo, rank 2, 1 query`."""
    spec = run.spec
    rank = f", rank {spec['rank']}" if "rank" in settings_of(run) else ""
    return f"{spec['workload']}{rank}, {spec['queries']} quer{'y' if spec['queries'] == 1 else 'ies'}"


def settings_of(run: Run) -> tuple[str, ...]:
    """What of rank and queries its directions have: dense ones have no rank."""
    return ("queries",) if run.spec["lora"] == "dense" else ("rank", "queries")


def finding(run: Run) -> dict[str, Any]:
    found = run.finding(RECORDER)
    assert found is not None
    return found


def markdown(runs: Sequence[Run]) -> str:
    """One row a run, the best cosine first."""
    rows = [HEADINGS, tuple("---" for _ in HEADINGS)]
    for run in sorted(runs, key=lambda run: -finding(run)["cosine"]):
        f = finding(run)
        noise = "-" if f["gain_deviation"] is None else f"{f['gain_deviation']:.2f}"
        cosines = f"{f['cosine']:.4f} ± {f['cosine_deviation']:.4f}", f"{f['averaged']['16']:.4f}"
        rows.append((name(run), str(f["minibatches"]), *cosines, f"{f['sign_agreement']:.0%}", f"{f['slope_error']:.1%}", noise))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(runs: Sequence[Run], output: Path) -> None:
    """Write the figure; the suffix of `output` says in which format. One line a run: means of 1, 2, 4, ... estimates."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for number, run in enumerate(runs):
        found = finding(run)
        counts = [int(count) for count in found["averaged"]]
        marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
        style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": marker}
        scored = [count * found["minibatches"] for count in counts]
        axes.plot(scored, list(found["averaged"].values()), markersize=4, linewidth=1.2, label=name(run), **style)
    axes.set(xscale="log", yscale="log", xlabel="minibatches scored (log)", ylabel="cosine of estimate and true gradient (log)")
    spec = runs[0].spec
    axes.set_title(f"{spec['task']} on {spec['model']}, {finding(runs[0])['parameters']:,} parameters in scope", fontsize=10)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(output, dpi=130)
    plt.close(figure)
