"""`reproduce`: what the paper's tables need, on this machine, at the sizes that fit; our row beside the paper's.

Every part is resumable: the same command goes on with what is missing. `--budget` bounds one call, so that a long campaign can
be cut into calls of known length.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import paper
from bench.api import UsageError
from bench.commands.interleaved import Planned, Point, finished, measure, points_of
from bench.commands.run import conduct, start
from bench.commands.terminal import stderr_console
from bench.config import RunOptions, RunSpec
from bench.defaults import FEATURES, complete, pick_device
from bench.harness.blocks import BlocksJob
from bench.harness.store import Store
from bench.registry import known
from bench.result import Result, find_results, load_result

PARTS = {"core-step": "", "end-to-end": "", "factorized": "", "all": ""}
MODELS = {"cuda": ("opt-1.3b", "opt-2.7b", "opt-6.7b", "opt-13b"), "cpu": ("opt-125m",)}
RANKS = (64, 128, 256, 512)
ROUNDS = 3


@dataclass(frozen=True)
class Campaign:
    """What every part is given. deadline: time.monotonic() at which no more work is begun."""

    models: Sequence[str]
    given: dict[str, Any]
    steps: int | None
    deadline: float
    store: Store
    console: Console

    def given_for(self, model: str) -> dict[str, Any]:
        """opt-tiny is nothing without what it has learned; the others are measured with the weights asked for."""
        return self.given | {"model": model} | ({"weights": "auto"} if model == "opt-tiny" else {})

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()


def reproduce(
    name: str, *, models: Sequence[str], steps: int | None, budget: float, weights: str, device: str, results: str
) -> int:
    """Run a part or all of them. Returns the exit code: 0 when nothing is missing, 1 when the budget ended first."""
    known(PARTS, "reproduce", name)
    if budget <= 0:
        raise UsageError(f"--budget {budget}: must be a positive number of minutes")
    kind = pick_device(device)
    chosen = models or MODELS[kind]
    given = {"device": kind, "weights": weights}
    campaign = Campaign(chosen, given, steps, time.monotonic() + 60 * budget, Store(results), stderr_console())
    parts = {"core-step": core_step, "end-to-end": end_to_end, "factorized": factorized}
    rows: dict[str, Any] = {}
    for part in parts if name == "all" else (name,):
        rows[part] = parts[part](campaign)
    done = all(row["done"] for part in rows.values() for row in part)
    print(json.dumps({"status": "passed" if done else "unfinished", **rows}, separators=(",", ":")))
    return 0 if done else 1


def core_step(campaign: Campaign) -> list[dict[str, Any]]:
    """Official and vLLM in one process for each model, each engine loaded once, blocks interleaved."""
    rows = []
    for model in campaign.models:
        points = _core_points(campaign, model)
        if not finished(points, ROUNDS, profile=True) and campaign.left_s > 0:
            job = BlocksJob([], [], ROUNDS, campaign.steps or 10)
            loads = [points[0].spec, points[-1].spec]
            measure(points, loads, job, campaign.store, campaign.console, campaign.left_s)
        rows.append(_core_row(model, points))
    _print_core(rows, campaign.console)
    return rows


def _core_points(campaign: Campaign, model: str) -> list[Point]:
    given = campaign.given_for(model) | {"workload": "lozo", "kv": "recompute"}
    vllm = complete(given | {"executor": "vllm", **FEATURES["vllm"], "kv": "recompute"})
    official = complete(given | {"executor": "official", **FEATURES["official"]})
    planned: list[Planned] = [(0, vllm, ""), (0, replace(vllm, kv="shared"), "")]
    planned += [(0, replace(vllm, kv="shared", loop="requests"), ""), (1, official, "")]
    return points_of([vllm, official], planned, campaign.steps or 10, campaign.store)


def _core_row(model: str, points: Sequence[Point]) -> dict[str, Any]:
    recompute, shared, requests, official = (_median(point.result) for point in points)
    row: dict[str, Any] = {"model": model, "done": finished(points, ROUNDS, profile=True)}
    row |= {"official_s": official, "vllm_recompute_s": recompute, "vllm_shared_s": shared, "vllm_requests_s": requests}
    published = paper.CORE_STEP_S.get(model)
    for name, value in (("recompute", recompute), ("shared", shared)):
        row[f"ratio_{name}"] = official / value if official and value else None
    row["paper_ratio"] = published[0] / published[1] if published else None
    if row["ratio_recompute"] and published:
        row["ratio_of_ratios"] = row["ratio_recompute"] / row["paper_ratio"]
    return row


def _print_core(rows: Sequence[dict[str, Any]], console: Console) -> None:
    headings = ("model", "official, ms", "vllm kv=recompute, ms", "kv=shared, ms", "requests, ms")
    table = Table(*headings, "ratio kv=recompute", "ratio kv=shared", "paper", "ours / paper", title="Core step, LoZO")
    for row in rows:
        times = [row[key] for key in ("official_s", "vllm_recompute_s", "vllm_shared_s", "vllm_requests_s")]
        ratios = [row["ratio_recompute"], row["ratio_shared"], row["paper_ratio"], row.get("ratio_of_ratios")]
        table.add_row(row["model"], *(_number(t, 1e3) for t in times), *(_number(r) for r in ratios))
    console.print(table)


def end_to_end(campaign: Campaign) -> list[dict[str, Any]]:
    """A whole run on vLLM with loading, evaluation and checkpoints; beside it the estimate median core step x steps."""
    rows: list[dict[str, Any]] = []
    for model in campaign.models:
        steps = campaign.steps or (paper.STEPS if campaign.given["device"] == "cuda" else 300)
        given = campaign.given_for(model) | {"workload": "lozo", "executor": "vllm", "steps": steps}
        spec = complete(given | {"checkpoint_every": max(1, steps // 5)})
        result, _ = _sessions(campaign, [spec])
        step_s, wall_s = _median(result), _wall(result)
        published = paper.END_TO_END_H.get(model)
        rows.append(
            {"model": model, "done": _timed(result), "steps": steps, "estimate_s": step_s and step_s * steps, "wall_s": wall_s}
            | {"wall_20k_h_estimate": step_s and step_s * paper.STEPS / 3600, "paper_h": published[1] if published else None}
        )
    table = Table(
        "model", "steps", "estimate, s", "real wall clock, s", "20,000 steps, h", "paper, h", title="End to end, LoZO on vLLM"
    )
    for row in rows:
        cells = (_number(row[key]) for key in ("estimate_s", "wall_s", "wall_20k_h_estimate", "paper_h"))
        table.add_row(row["model"], str(row["steps"]), *cells)
    campaign.console.print(table)
    return rows


def factorized(campaign: Campaign) -> list[dict[str, Any]]:
    """Official MeZO against factorized directions of several ranks on vLLM, sessions interleaved; losses to be overlaid."""
    rows: list[dict[str, Any]] = []
    for model in campaign.models[:1]:
        given = campaign.given_for(model) | {"steps": campaign.steps or 20}
        mezo = complete(given | {"workload": "mezo", "executor": "official"})
        ranks = [complete(given | {"workload": "factorized", "executor": "vllm", "rank": rank}) for rank in RANKS]
        found = _sessions(campaign, [mezo, *ranks])[1]
        slow = _median(found[0])
        for rank, result in zip(RANKS, found[1:], strict=True):
            fast, published = _median(result), paper.FACTORIZED_RATIO.get(rank)
            row: dict[str, Any] = {"model": model, "rank": rank, "done": _timed(result), "mezo_s": slow, "factorized_s": fast}
            rows.append(row | {"ratio": slow / fast if slow and fast else None, "paper_ratio": published})
    table = Table("model", "rank", "official MeZO, ms", "vllm factorized, ms", "ratio", "paper", title="Factorized directions")
    for row in rows:
        cells = (
            _number(row["mezo_s"], 1e3),
            _number(row["factorized_s"], 1e3),
            _number(row["ratio"]),
            _number(row["paper_ratio"]),
        )
        table.add_row(row["model"], str(row["rank"]), *cells)
    campaign.console.print(table)
    return rows


def _sessions(campaign: Campaign, specs: Sequence[RunSpec]) -> tuple[Result | None, list[Result | None]]:
    """One session of each spec: those an earlier call has finished are read, the others run within the budget."""
    missing = [spec for spec in specs if not _timed(_held(campaign.store, spec))]
    if missing and campaign.left_s > 0:
        options = RunOptions(1, max(1.0, campaign.left_s), True, (), False, str(campaign.store.local.parent))
        conduct(start(missing, options, campaign.store), options, campaign.store, campaign.console, quiet=True)
    found = [_held(campaign.store, spec) for spec in specs]
    return found[0], found


def _held(store: Store, spec: RunSpec) -> Result | None:
    """The newest finished result of a spec."""
    held = [load_result(path) for path in find_results([store.local])]
    same = [r for r in held if r.spec == spec.to_json() and _timed(r) and r.sessions[0].details.get("unit") != "block"]
    return max(same, key=lambda r: r.created, default=None)


def _timed(result: Result | None) -> bool:
    return result is not None and result.status == "passed" and any(s.step_s for s in result.sessions)


def _median(result: Result | None) -> float | None:
    values = [median(s.step_s) for s in result.sessions if s.step_s] if result else []
    return median(values) if values else None


def _wall(result: Result | None) -> float | None:
    """Seconds from the start of the session's process to its end."""
    return result.sessions[0].details.get("wall_s") if result and result.sessions else None


def _number(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:.4g}"
