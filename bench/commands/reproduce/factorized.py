"""Factorized directions: official MeZO against several ranks on vLLM, sessions interleaved, and their losses in one figure.

An eager run at one of the ranks is there to be agreed with: the same directions and batches through other kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import paper
from analysis.trajectories import loss_change, signs_agree
from bench.commands.reproduce.campaign import Campaign, cell, compared, step_s
from bench.defaults import complete

RANKS, STEPS, WITNESSED = (64, 128, 256, 512), 20, 128


def run(campaign: Campaign) -> list[dict[str, Any]]:
    model = campaign.models[0]
    given = campaign.given_for(model) | {"steps": campaign.steps or STEPS}
    mezo = complete(given | {"workload": "mezo", "executor": "official"})
    ranks = [complete(given | {"workload": "factorized", "executor": "vllm", "rank": rank}) for rank in RANKS]
    witness = complete(given | {"workload": "factorized", "executor": "eager", "rank": WITNESSED})
    slow, *fast, other = campaign.sessions([mezo, *ranks, witness])
    rows = []
    for rank, result in zip(RANKS, fast, strict=True):
        row: dict[str, Any] = {"model": model, "rank": rank, "done": None not in (slow, result, other)}
        row |= {"mezo_s": step_s(slow), "factorized_s": step_s(result)} | compared("mezo", slow, result)
        ours, theirs = row["ratio_mezo"], paper.FACTORIZED_RATIO.get((model, rank))
        row |= {"paper_ratio": theirs, "ratio_of_ratios": ours / theirs if ours and theirs else None}
        row |= {"loss_change": loss_change(result), "mezo_loss_change": loss_change(slow)}
        rows.append(row | {"signs_agree": signs_agree(result, other) if rank == WITNESSED else None})
    if rows[0]["done"]:
        _draw(campaign, [found.id for found in (slow, *fast) if found])
    return rows


def _draw(campaign: Campaign, ids: Sequence[str]) -> None:
    from analysis.losses import draw
    from analysis.runs import load_runs

    target = campaign.store.local / f"factorized_{campaign.models[0].replace('/', '_')}.png"
    draw([run for run in load_runs([campaign.store.local]) if run.result.id in ids], target)
    campaign.console.print(f"losses of MeZO and of each rank: {target}", soft_wrap=True)


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="Factorized directions; ratio: official MeZO / vllm factorized")
    headings = ("model", "rank", "official MeZO, ms", "vllm factorized, ms", "ratio", "paper", "ours / paper")
    for heading in (*headings, "loss change, MeZO", "factorized", "paper: MeZO", "factorized"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        times = (cell(row["mezo_s"], 1e3), cell(row["factorized_s"], 1e3))
        ratios = [row[key] for key in ("ratio_mezo", "paper_ratio", "ratio_of_ratios", "mezo_loss_change", "loss_change")]
        theirs = [paper.LOSS_CHANGE[None], paper.LOSS_CHANGE.get(row["rank"])]
        table.add_row(row["model"], str(row["rank"]), *times, *map(cell, ratios), *map(cell, theirs))
    console.print(table)
    early, late = paper.LOSS_CHANGE_STEPS
    console.print(f"loss change: from step {early} to {late} (OPT-1.3B in the paper); '-' where a run is shorter than that")
    for row in (row for row in rows if row["signs_agree"]):
        words = [f"{name} {share:.1%} (paper {paper.SIGNS_AGREE[name]:.1%})" for name, share in row["signs_agree"].items()]
        console.print(f"signs of projected gradients, vllm and eager, rank {row['rank']}: {', '.join(words)} agree")
        console.print(
            "high signal: the half of the steps with the larger projected gradients; the paper does not say where it cuts"
        )
