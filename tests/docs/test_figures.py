"""The published figures in the README and in docs/results.md are what the committed files hold."""

from pathlib import Path
from statistics import median

import pytest

import bench.notebook as zo

ROOT = Path(__file__).parents[2]
SIZES = {"1.3B": "opt-1.3b", "2.7B": "opt-2.7b", "6.7B": "opt-6.7b", "13B": "opt-13b"}
RECOMPUTE, SHARED, REQUESTS = ("recompute", "resident"), ("shared", "resident"), ("shared", "requests")


@pytest.fixture(scope="module")
def published():
    return zo.load(ROOT / "results" / "published" / "h200")


def rows(page, heading):
    """Cells of the table with this heading's start, by their first cell."""
    lines = (ROOT / page).read_text().split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith(heading)) + 2
    table = [line.strip("| ").split(" | ") for line in lines[start : lines.index("", start)]]
    return {cells[0]: cells[1:] for cells in table}


def block_median_ms(runs, model, executor, kv="recompute", loop="requests"):
    features = {"executor": executor, "kv": kv, "loop": loop, "variant": ""}
    features |= {"batching": "paired", "lora": "fused"} if executor == "vllm" else {}
    (run,) = [r for r in runs if r.spec["model"] == model and features.items() <= r.spec.items()]
    return 1e3 * median(median(session.step_s) for session in run.sessions)


def test_times_are_medians_of_the_blocks_medians(published):
    readme, results = rows("README.md", "| OPT | official |"), rows("docs/results.md", "| OPT | official, ms |")
    for size, model in SIZES.items():
        official = block_median_ms(published, model, "official")
        recompute, shared, requests = (block_median_ms(published, model, "vllm", *how) for how in (RECOMPUTE, SHARED, REQUESTS))
        ratios = [f"{official / time:.1f}" for time in (recompute, shared)]
        times = [f"{time:.3g}" for time in (official, recompute, shared)]
        assert readme[size][:5] == [times[0], times[1], ratios[0], times[2], ratios[1]]
        assert results[size] == [*times, f"{requests:.1f}"]


def test_ratios_and_intervals_are_those_of_compare(published):
    found, page = zo.compare(*published), rows("docs/results.md", "| OPT | official / vllm kv=recompute |")
    found["size"] = [Path(path).name.split("_")[3] for path in found.path]
    for size, model in SIZES.items():
        for (kv, loop), cell in zip((RECOMPUTE, SHARED, REQUESTS), page[size], strict=True):
            at = (found["size"] == model) & (found.kv == kv) & (found.loop == loop) & (found.executor == "vllm")
            row = found[at & (found.batching == "paired") & (found.lora == "fused") & found.variant.isna()].iloc[0]
            assert cell == f"{row.ratio:.2f}, {row.ratio_low:.2f} to {row.ratio_high:.2f}"
