"""Factorized directions: official MeZO against several ranks on vLLM, sessions interleaved, and their losses in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import paper
from bench.commands.reproduce.campaign import Campaign, cell, median_s, over
from bench.defaults import complete

RANKS, STEPS = (64, 128, 256, 512), 20


def run(campaign: Campaign) -> list[dict[str, Any]]:
    model = campaign.models[0]
    given = campaign.given_for(model) | {"steps": campaign.steps or STEPS}
    mezo = complete(given | {"workload": "mezo", "executor": "official"})
    ranks = [complete(given | {"workload": "factorized", "executor": "vllm", "rank": rank}) for rank in RANKS]
    slow, *fast = campaign.sessions([mezo, *ranks])
    rows = []
    for rank, result in zip(RANKS, fast, strict=True):
        row = {"model": model, "rank": rank, "done": slow is not None and result is not None}
        row |= {"mezo_s": median_s(slow), "factorized_s": median_s(result)}
        ratio, published = over(median_s(slow), median_s(result)), paper.FACTORIZED_RATIO.get((model, rank))
        rows.append(row | {"ratio": ratio, "paper_ratio": published, "ratio_of_ratios": over(ratio, published)})
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
    for heading in ("model", "rank", "official MeZO, ms", "vllm factorized, ms", "ratio", "paper", "ours / paper"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        ratios = [row[key] for key in ("ratio", "paper_ratio", "ratio_of_ratios")]
        times = (cell(row["mezo_s"], 1e3), cell(row["factorized_s"], 1e3))
        table.add_row(row["model"], str(row["rank"]), *times, *map(cell, ratios))
    console.print(table)
