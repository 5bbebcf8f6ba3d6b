"""The published figures in the README and in docs/results.md are what the committed files hold."""

from operator import truediv as divide
from pathlib import Path

import pytest

import bench.notebook as zo
from analysis import paper

ROOT = Path(__file__).parents[2]
SIZES = {"1.3B": "opt-1.3b", "2.7B": "opt-2.7b", "6.7B": "opt-6.7b", "13B": "opt-13b"}
RECOMPUTE, SHARED, REQUESTS = ("recompute", "resident"), ("shared", "resident"), ("shared", "requests")


@pytest.fixture(scope="module")
def published():
    found = zo.compare(*zo.load(ROOT / "results" / "published" / "h200"))
    found["size"] = [Path(path).name.split("_")[3] for path in found.path]
    return found


def rows(page, heading):
    """Cells of the table with this heading's start, by their first cell."""
    lines = (ROOT / page).read_text().split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith(heading)) + 2
    table = [line.strip("| ").split(" | ") for line in lines[start : lines.index("", start)]]
    return {cells[0]: cells[1:] for cells in table}


def row(found, executor, kv="recompute", loop="requests"):
    """compare's row of the fastest point of an executor."""
    at = (found.executor == executor) & (found.kv == kv) & (found.loop == loop) & found.variant.isna()
    if executor == "vllm":
        at &= (found.batching == "paired") & (found.lora == "fused")
    return found[at].iloc[0]


@pytest.mark.parametrize("size", SIZES)
def test_steps_ratios_and_intervals_are_those_of_compare(published, size):
    found = published[published["size"] == SIZES[size]]
    official = row(found, "official")
    recompute, shared, requests = (row(found, "vllm", *how) for how in (RECOMPUTE, SHARED, REQUESTS))
    times = [f"{1e3 * one.step_s:.3g}" for one in (official, recompute, shared, requests)]
    short = [f"{one.ratio:.1f} ({one.ratio_low:.1f} to {one.ratio_high:.1f})" for one in (recompute, shared)]
    long = [f"{one.ratio:.2f}, {one.ratio_low:.2f} to {one.ratio_high:.2f}" for one in (recompute, shared, requests)]
    rerun = f"{divide(*paper.CORE_STEP_S[SIZES[size], 16]):.2f}"
    readme = rows("README.md", "| OPT | official |")[size]
    assert readme == [times[0], times[1], short[0], times[2], short[1], rerun]
    assert rows("docs/results.md", "| OPT | official, ms |")[size] == times
    assert rows("docs/results.md", "| OPT | official / vllm kv=recompute |")[size] == long
