"""End to end: a whole run on vLLM with loading, evaluation and checkpoints, and what the official loop would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import paper
from bench.commands.reproduce.campaign import Campaign, cell, compared, step_s
from bench.defaults import complete
from bench.result import SessionResult

STEPS = {"cuda": paper.STEPS, "cpu": 300}
OFFICIAL_STEPS, EVALUATIONS = 20, 5
"""The official loop is timed for a few steps and multiplied: 20,000 of them take hours."""


def run(campaign: Campaign) -> list[dict[str, Any]]:
    return [_row(campaign, model) for model in campaign.models]


def _row(campaign: Campaign, model: str) -> dict[str, Any]:
    steps = campaign.steps or STEPS[campaign.given["device"]]
    given, every = campaign.given_for(model) | {"workload": "lozo"}, max(1, steps // EVALUATIONS)
    learned = given["weights"] != "random"  # the accuracy of random weights means nothing, and is not computed
    kept = {"checkpoint_every": every} | ({"eval_every": every} if learned else {})
    vllm = complete(given | {"executor": "vllm", "steps": steps, **kept})
    short = {"steps": min(OFFICIAL_STEPS, steps), "warmup": min(2, vllm.warmup), "eval_every": 0}
    official = complete(given | {"executor": "official", **short})
    result, slow = campaign.sessions([vllm, official])
    ours, theirs = step_s(result), step_s(slow)
    hours = paper.END_TO_END_H.get(model)
    row = {"model": model, "done": result is not None and slow is not None, "steps": steps, "evaluated": learned}
    row |= accounted(result.sessions[0], ours) if result and ours else {}
    row |= {"vllm_20k_h": ours and ours * paper.STEPS / 3600, "official_20k_h": theirs and theirs * paper.STEPS / 3600}
    row |= compared("core_step", slow, result)
    published, ratio = (hours[0] / hours[1] if hours else None), row["ratio_core_step"]
    return row | {"paper_ratio": published, "ratio_of_ratios": ratio / published if ratio and published else None}


def accounted(session: SessionResult, step_s: float) -> dict[str, Any]:
    """The estimate beside the wall clock of the same steps, and where all seconds of the process went.

    besides     seconds by what else the process did; start: the interpreter, imports, and ending
    pauses      single steps beyond the estimate: cold ones after a pause, intervals of V that were not whole
    between     what passed between the steps: batches, reports
    """
    estimate, stages = step_s * len(session.step_s), dict(session.stages_s)
    timed = stages.pop("timed", 0.0)
    wall = session.wall_s or 0.0
    besides = stages | {"start": wall - timed - sum(stages.values())}
    facts = {"estimate_s": estimate, "timed_s": timed, "wall_s": wall, "apart": estimate / timed - 1 if timed else None}
    return facts | {"pauses_s": sum(session.step_s) - estimate, "between_s": timed - sum(session.step_s), "besides_s": besides}


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="End to end, LoZO. Estimate: amortised core step x steps, beside those steps by the wall clock")
    headings = (
        "model",
        "steps",
        "estimate, s",
        "by the wall clock, s",
        "whole process, s",
        "20,000 steps: vllm, h",
        "official, h",
    )
    for heading in (*headings, "ratio", "paper, v1", "ours / paper"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    keys = (
        "estimate_s",
        "timed_s",
        "wall_s",
        "vllm_20k_h",
        "official_20k_h",
        "ratio_core_step",
        "paper_ratio",
        "ratio_of_ratios",
    )
    for row in rows:
        table.add_row(row["model"], str(row["steps"]), *(cell(row.get(key)) for key in keys))
    console.print(table)
    for row in (row for row in rows if row.get("apart") is not None):
        parts = sorted(row["besides_s"].items(), key=lambda part: -part[1])
        console.print(
            f"{row['model']}: estimate and wall clock differ by {row['apart']:+.1%} "
            f"(pauses and broken intervals {row['pauses_s']:+.2f} s, between steps {row['between_s']:+.2f} s); "
            "besides the steps: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts)
        )
    if any(not row["evaluated"] for row in rows):
        console.print("random weights are not evaluated: their wall clock holds loading, checks, steps and checkpoints")
