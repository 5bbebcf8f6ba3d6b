"""Core step: official and vLLM in one process for each model, each engine loaded once, blocks interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import paper
from bench.commands.reproduce.campaign import Campaign, cell, compared, step_s
from bench.defaults import complete
from bench.harness.blocks import BlocksJob
from bench.harness.points import Planned, Point, finished, measure, points_of
from bench.registry import executor_entry

ROUNDS, STEPS, BATCH = 5, 10, 16
FURTHER = (32, 64, 128)
"""The other batch sizes of the authors' matrix: on a GPU, after all models were measured at the usual one."""


def run(campaign: Campaign) -> list[dict[str, Any]]:
    sizes = campaign.batch_sizes or ((BATCH, *FURTHER) if campaign.given["device"] == "cuda" and not campaign.asked else (BATCH,))
    return [_row(campaign, model, size) for size in sizes for model in campaign.models]


def _row(campaign: Campaign, model: str, batch_size: int) -> dict[str, Any]:
    steps = campaign.steps or STEPS
    points = _points(campaign, model, batch_size, steps)
    if not finished(points, ROUNDS, profile=True) and campaign.left_s > 0:
        loads = [points[0].spec, points[-1].spec]
        measure(points, loads, BlocksJob([], [], ROUNDS, steps), campaign.store, campaign.console, campaign.left_s)
    recompute, shared, requests, official = (point.result for point in points)
    row: dict[str, Any] = {"model": model, "batch_size": batch_size, "done": finished(points, ROUNDS, profile=True)}
    names = {"official": official, "vllm_recompute": recompute, "vllm_shared": shared, "vllm_requests": requests}
    row |= {f"{name}_s": step_s(result) for name, result in names.items()}
    row |= compared("recompute", official, recompute) | compared("shared", official, shared)
    published = paper.CORE_STEP_S.get((model, batch_size))
    theirs, ours = (published[0] / published[1] if published else None), row["ratio_recompute"]
    return row | {"rerun_ratio": theirs, "ratio_of_ratios": ours / theirs if ours and theirs else None}


def _points(campaign: Campaign, model: str, batch_size: int, steps: int) -> list[Point]:
    given = campaign.given_for(model) | {"workload": "lozo", "batch_size": batch_size}
    vllm = complete(given | {"executor": "vllm", **executor_entry("vllm").fastest, "kv": "recompute"})
    official = complete(given | {"executor": "official"})
    shared = replace(vllm, kv="shared")
    planned: list[Planned] = [(0, vllm), (0, shared), (0, replace(shared, loop="requests")), (1, official)]
    return points_of([vllm, official], planned, steps, campaign.store)


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="Core step, LoZO, amortised over V's intervals; ratios: official / vllm")
    headings = ("model", "batch", "official, ms", "recompute, ms", "shared, ms", "requests, ms")
    for heading in (*headings, "ratio recompute", "ratio shared", "verdict", "theirs", "ours / theirs"):
        table.add_column(heading, justify="left" if heading in ("model", "verdict") else "right")
    for row in rows:
        times = [row[key] for key in ("official_s", "vllm_recompute_s", "vllm_shared_s", "vllm_requests_s")]
        ratios = [f"{cell(row[f'ratio_{kv}'])}\n{row[f'interval_{kv}']}".strip() for kv in ("recompute", "shared")]
        theirs = [cell(row[key]) for key in ("rerun_ratio", "ratio_of_ratios")]
        table.add_row(
            row["model"], str(row["batch_size"]), *(cell(t, 1e3) for t in times), *ratios, row["verdict_shared"], *theirs
        )
    console.print(table)
    low, high = paper.CORE_STEP_RANGE
    console.print(f"theirs: {paper.RERUN}; the {paper.PAPER} says {low} to {high} from 1.3B to 13B")
    console.print("recompute: vllm kv=recompute, their method, like for like; shared: each prompt scored once; 95 % intervals")
