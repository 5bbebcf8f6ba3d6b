"""The compact table `run` prints after the steps: the breakdown of a core step, and one line for each other recorder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 88


def table(findings: Mapping[str, Mapping[str, Any]]) -> Table:
    """Rows: buckets by time with their share and number of pieces, then idle. The caption holds what else was found."""
    from rich.table import Table

    breakdown, launches = findings.get("time_breakdown", {}), findings.get("launches", {})
    pieces = "kernels" if launches.get("kernels") is not None else "operators"
    shown = Table(title="Core step, profiled", caption="\n".join(_lines(findings)), caption_justify="left", min_width=WIDTH)
    shown.add_column("bucket")
    for heading in ("ms", "share", pieces):
        shown.add_column(heading, justify="right")
    buckets, counts = breakdown.get("buckets", {}), launches.get("by_bucket", {})
    span = breakdown.get("span_s", 0.0)
    for name in sorted({*buckets, *counts}, key=lambda b: -buckets.get(b, 0.0)):
        shown.add_row(name, *_time(buckets.get(name), span), _number(counts.get(name)))
    if breakdown:
        shown.add_row("idle", *_time(breakdown["idle_s"], span), "")
        shown.add_section()
        shown.add_row("step", *_time(span, span), _number(launches.get(pieces)))
    return shown


def _lines(findings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if time := findings.get("time_breakdown"):
        yield f"profiled step / timed step: {time['overhead']:.2f}"
    if (launched := findings.get("launches")) and launched["kernels"] is not None:
        calls, graphs = launched["launch_calls"], launched["graph_launches"]
        yield f"{calls:g} launch calls, {graphs:g} graph launches, {launched['memcpys']:g} copies"
    if memory := findings.get("memory"):
        parts = sorted(memory["parts"].items(), key=lambda part: -part[1])
        yield f"memory {_size(memory['allocated_peak'])}: " + ", ".join(
            f"{name.replace('_', ' ')} {_size(size)}" for name, size in parts if size
        )
    if energy := findings.get("energy"):
        reasons = energy["after"]["throttle"]
        throttle = ", ".join(reasons) if reasons else "throttling unknown" if reasons is None else "no throttling"
        yield f"energy {energy['joules_per_step']:.3g} J a step at {energy['average_watts']:.0f} W, {throttle}"
    if counted := findings.get("counters"):
        work = counted["work"]
        fold = f", {_size(work['fold_bytes_written'])} at a fold" if work["fold_bytes_written"] else ""
        yield (
            f"{work['forwards']} forwards over {work['tokens_scored']} tokens ({work['tokens_real']} real), "
            f"{counted['flops']['total'] / 1e9:.3g} GFLOP, "
            f"{_size(work['weight_bytes_written'])} of weights rewritten{fold}"
        )
    if found := findings.get("throughput"):
        yield (
            f"{found['tokens_per_s']:.0f} tokens/s generated in training, {found['share']:.1%} of what inference alone reaches "
            f"({found['inference_tokens_per_s']:.0f})"
        )
    if roof := findings.get("roofline"):
        floor = roof["required"]
        yield (
            f"at best {floor['floor_s'] * 1e3:.3g} ms ({floor['binds']} binds): {roof['achieved']:.1%} achieved, "
            f"{roof['achieved_executed']:.1%} counting the work as configured"
        )
    if quality := findings.get("gradient_quality"):
        yield (
            f"estimate and true gradient: cosine {quality['cosine']:.3g} (mean of {quality['draws']} draws), "
            f"signs agree in {quality['sign_agreement']:.0%}, slopes off by {quality['slope_error']:.1%}"
        )


def _time(seconds: float | None, span: float) -> tuple[str, str]:
    if seconds is None:
        return "", ""
    return f"{seconds * 1e3:.3f}", f"{seconds / span:.1%}" if span else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _size(nbytes: float) -> str:
    """Binary units, three digits."""
    power = min(int(math.log(abs(nbytes), 1024)), 4) if nbytes else 0
    return f"{nbytes / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
