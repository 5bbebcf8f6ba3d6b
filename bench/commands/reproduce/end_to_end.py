"""End to end: a whole run on vLLM with loading, evaluation and checkpoints, and what the official loop would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import paper
from bench.commands.reproduce.campaign import Campaign, cell, median_s, over
from bench.defaults import complete

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
    step_s, official_s = median_s(result), median_s(slow)
    published = paper.END_TO_END_H.get(model)
    paper_ratio = over(*published) if published else None
    return {
        "model": model,
        "done": result is not None and slow is not None,
        "steps": steps,
        "evaluated": learned,
        "estimate_s": step_s and step_s * steps,
        "wall_s": result.sessions[0].details.get("wall_s") if result else None,
        "vllm_20k_h": step_s and step_s * paper.STEPS / 3600,
        "official_20k_h": official_s and official_s * paper.STEPS / 3600,
        "ratio": over(official_s, step_s),
        "paper_ratio": paper_ratio,
        "ratio_of_ratios": over(over(official_s, step_s), paper_ratio),
    }


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="End to end, LoZO. Estimate: median core step x steps; wall clock: the process from start to end")
    headings = ("model", "steps", "vllm, estimate, s", "wall clock, s", "20,000 steps: vllm, h", "official, h", "ratio")
    for heading in (*headings, "paper", "ours / paper"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        keys = ("estimate_s", "wall_s", "vllm_20k_h", "official_20k_h", "ratio", "paper_ratio", "ratio_of_ratios")
        table.add_row(row["model"], str(row["steps"]), *(cell(row[key]) for key in keys))
    console.print(table)
    if any(not row["evaluated"] for row in rows):
        console.print("random weights are not evaluated: their wall clock holds loading, checks, steps and checkpoints")
