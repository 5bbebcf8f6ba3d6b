"""Core step: official and vLLM in one process for each model, each engine loaded once, blocks interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import paper
from bench.commands.reproduce.campaign import Campaign, cell, median_s, over
from bench.defaults import complete
from bench.harness.blocks import BlocksJob
from bench.harness.points import Planned, Point, finished, measure, points_of
from bench.registry import executor_entry

ROUNDS, STEPS, BATCH = 3, 10, 16
LARGER = {"opt-13b": (32, 128)}
"""The paper's other batch sizes: on a GPU, after all models were measured at the usual one, unless models were named."""


def run(campaign: Campaign) -> list[dict[str, Any]]:
    sizes = [(model, BATCH) for model in campaign.models]
    if campaign.given["device"] == "cuda" and not campaign.asked:
        sizes += [(model, size) for model in campaign.models for size in LARGER.get(model, ())]
    return [_row(campaign, model, size) for model, size in sizes]


def _row(campaign: Campaign, model: str, batch_size: int) -> dict[str, Any]:
    steps = campaign.steps or STEPS
    points = _points(campaign, model, batch_size, steps)
    if not finished(points, ROUNDS, profile=True) and campaign.left_s > 0:
        loads = [points[0].spec, points[-1].spec]
        measure(points, loads, BlocksJob([], [], ROUNDS, steps), campaign.store, campaign.console, campaign.left_s)
    recompute, shared, requests, official = (median_s(point.result) for point in points)
    published = paper.CORE_STEP_S.get((model, batch_size))
    row: dict[str, Any] = {"model": model, "batch_size": batch_size, "done": finished(points, ROUNDS, profile=True)}
    row |= {"official_s": official, "vllm_recompute_s": recompute, "vllm_shared_s": shared, "vllm_requests_s": requests}
    row |= {"ratio_recompute": over(official, recompute), "ratio_shared": over(official, shared)}
    paper_ratio = over(*published) if published else None
    return row | {"paper_ratio": paper_ratio, "ratio_of_ratios": over(row["ratio_recompute"], paper_ratio)}


def _points(campaign: Campaign, model: str, batch_size: int, steps: int) -> list[Point]:
    given = campaign.given_for(model) | {"workload": "lozo", "batch_size": batch_size}
    vllm = complete(given | {"executor": "vllm", **executor_entry("vllm").fastest, "kv": "recompute"})
    official = complete(given | {"executor": "official"})
    shared = replace(vllm, kv="shared")
    planned: list[Planned] = [(0, vllm), (0, shared), (0, replace(shared, loop="requests")), (1, official)]
    return points_of([vllm, official], planned, steps, campaign.store)


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="Core step, LoZO; ratios: official / vllm")
    headings = ("model", "batch", "official, ms", "vllm kv=recompute, ms", "kv=shared, ms", "requests, ms")
    for heading in (*headings, "ratio kv=recompute", "ratio kv=shared", "paper", "ours / paper"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        times = [row[key] for key in ("official_s", "vllm_recompute_s", "vllm_shared_s", "vllm_requests_s")]
        ratios = [row[key] for key in ("ratio_recompute", "ratio_shared", "paper_ratio", "ratio_of_ratios")]
        table.add_row(row["model"], str(row["batch_size"]), *(cell(t, 1e3) for t in times), *map(cell, ratios))
    console.print(table)
