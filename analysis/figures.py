"""The figures of the report. Each takes the tidy table (or attribution paths) and returns a figure, or None without material.

Okabe and Ito's colours, with hatches or markers beside them, so that they read in black and white too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import paper
from analysis.by_task import features_by_task
from analysis.path import AttributionPath
from analysis.runs import size_of
from analysis.serving import picture
from analysis.statistics import center

matplotlib.use("agg")

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#999999", "#000000")
HATCHES = ("", "//", "..", "xx", "\\\\", "oo", "--", "++", "**")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def sessions(table: pd.DataFrame) -> Figure | None:
    """Every session or block as a dot, their geometric mean as a bar: amortised seconds of a core step."""
    data = table[table.metric == "step_s"]
    if data.empty:
        return None
    names = _names(data)
    order = list(data.groupby(names).value.agg(center).sort_values(ascending=False).index)
    figure, axes = _axes(height=1.2 + 0.28 * len(order))
    for i, name in enumerate(order):
        values = data[names == name].value * 1e3
        axes.plot(values, [i] * len(values), "o", color=COLOURS[0], markersize=4, alpha=0.7)
        axes.plot([center(values)] * 2, [i - 0.35, i + 0.35], color="black", linewidth=2)
    axes.set(yticks=range(len(order)), yticklabels=order, xlabel="core step, ms (log scale)", xscale="log")
    axes.invert_yaxis()
    return figure


def waterfall(path: AttributionPath) -> Figure:
    """What each part contributes, as factors on a logarithmic axis, from the first point to the last."""
    figure, axes = _axes(height=1.2 + 0.42 * len(path.parts))
    at = 1.0
    for i, part in enumerate(path.parts):
        value = part.ratio.value
        colour, hatch = (COLOURS[0], "") if value >= 1 else (COLOURS[4], "//")
        axes.barh(i, at * value - at, left=at, color=colour, hatch=hatch, edgecolor="black", linewidth=0.6)
        if part.ratio.low is not None and part.ratio.high is not None:
            axes.plot([at * part.ratio.low, at * part.ratio.high], [i, i], color="black", linewidth=1.2)
        axes.text(1.01, i, f"{value:.2f}x", transform=axes.get_yaxis_transform(), va="center", fontsize=9)
        at *= value
    labels = [part.name for part in path.parts]
    axes.set(yticks=range(len(labels)), yticklabels=labels, xscale="log", xlabel=f"speed-up over {path.first.label} (log scale)")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_title(path.title, fontsize=9)
    axes.invert_yaxis()
    return figure


def breakdown(table: pd.DataFrame) -> Figure | None:
    """Where the time of a profiled step goes, stacked by bucket."""
    return _stacked(table[table.metric == "bucket_s"], 1e3, "profiled core step, ms")


def memory(table: pd.DataFrame) -> Figure | None:
    """What memory holds at the peak of a profiled step, stacked by part."""
    return _stacked(table[table.metric == "memory_bytes"], 1 / 2**20, "memory, MiB")


def launches(table: pd.DataFrame) -> Figure | None:
    """Kernels (operators on a CPU) of a step."""
    data = table[table.metric == "launches"]
    if data.empty:
        return None
    values = data.groupby(_names(data)).value.median().sort_values(ascending=False)
    figure, axes = _axes(height=1.2 + 0.3 * len(values))
    axes.barh(values.index, values, color=COLOURS[5], edgecolor="black", linewidth=0.6)
    axes.set_xlabel(f"{data.value_unit.iloc[0]} a step")
    axes.invert_yaxis()
    return figure


def roofline(table: pd.DataFrame) -> Figure | None:
    """Required work over measured time against the ceilings measured on the same machine."""
    wide = table[table.metric.str.startswith(("roofline", "ceiling"))]
    if wide.empty:
        return None
    figure, axes = _axes(height=4)
    values = wide.pivot_table(index="file", columns="metric", values="value", aggfunc="median")
    steps: dict[Any, float] = table[table.metric == "step_s"].groupby("file").value.agg(center).to_dict()
    top, slope = values.ceiling_flops.max(), values.ceiling_bytes.max()
    x = np.geomspace(0.1, max(1e4, 2 * (values.roofline_flops / values.roofline_bytes).max()), 100)
    axes.plot(x, np.minimum(top, slope * x) / 1e9, color="black", label="ceilings: large product, large copy")
    names: dict[Any, str] = (table.groupby("file").point.first() + ", " + table.groupby("file").model.first()).to_dict()
    for i, (file, row) in enumerate(values.iterrows()):
        style: dict[str, Any] = {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[i % len(COLOURS)], "linestyle": "none"}
        axes.plot(row.roofline_flops / row.roofline_bytes, row.roofline_flops / steps[file] / 1e9, label=names[file], **style)
    axes.set(xscale="log", yscale="log", xlabel="FLOP a byte, least work of the step", ylabel="GFLOP/s of that work")
    axes.legend(fontsize=7, loc="lower right")
    return figure


def scaling(table: pd.DataFrame) -> Figure | None:
    """Official over vLLM by model at batch 16, LoZO, the authors' rerun beside ours."""
    data = table[(table.metric == "step_s") & (table.workload == "lozo") & (table.batch_size == 16)]
    times = data.groupby(["model", "point"]).value.agg(center).unstack()
    vllm = [name for name in times.columns if name.startswith("vllm kv=") and "," not in name]  # variants: the attribution's
    if "official" not in times or not vllm:
        return None
    figure, axes = _axes(height=3.5)
    published = {model: times for (model, batch), times in paper.CORE_STEP_S.items() if batch == 16}
    models = sorted({*times.index, *published}, key=size_of)
    for i, name in enumerate(vllm):
        ratio = (times.official / times[name]).reindex(models)
        axes.plot(range(len(models)), ratio, MARKERS[i], color=COLOURS[i], label=f"ours, {name}", markersize=7)
    theirs = [np.divide(*published[m]) if m in published else np.nan for m in models]
    axes.plot(range(len(models)), theirs, "x", color="black", label="authors' rerun, June 2026", markersize=8)
    axes.set(xticks=range(len(models)), xticklabels=models, ylabel="core step, official / vLLM", ylim=(0, None))
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def losses(table: pd.DataFrame) -> Figure | None:
    """Mean loss of the probes over the steps, one line a run, smoothed over 20 steps."""
    data = table[(table.metric == "loss") & (table.unit == "session") & (table.session == 0)]
    if data.empty:
        return None
    figure, axes = _axes(height=3.8)
    for i, (_, run) in enumerate(data.groupby("file")):
        smooth = run.set_index(run.key.astype(int)).value.sort_index().rolling(20, min_periods=1).mean()
        label = f"{run.workload.iloc[0]} {run.point.iloc[0]}, {run.model.iloc[0]}{_sizes(data).loc[run.index[0]]}"
        marker = MARKERS[i % len(MARKERS)]
        every = max(1, len(smooth) // 8)
        axes.plot(
            smooth.index, smooth, color=COLOURS[i % len(COLOURS)], marker=marker, markevery=every, markersize=4, label=label
        )
    axes.set(xlabel="step", ylabel="loss, nats (mean over 20 steps)", ylim=(0, None))
    axes.legend(fontsize=7)
    return figure


def serving(table: pd.DataFrame) -> Figure | None:
    """What users waited for their first token, 99th percentile, beside the training steps made meanwhile: a curve a policy."""
    data = table[table.metric.isin(("ttft_p99_s", "train_steps_per_s")) & (table.users_per_s > 0)]
    if data.empty:
        return None
    figure, axes = _axes(height=4)
    picture(data, axes, [{"color": COLOURS[i], "marker": MARKERS[i], "markersize": 6} for i in range(len(MARKERS))])
    return figure


def _stacked(data: pd.DataFrame, scale: float, label: str) -> Figure | None:
    if data.empty:
        return None
    wide = data.assign(name=_names(data)).pivot_table(index="name", columns="key", values="value", aggfunc="median") * scale
    wide = wide.loc[wide.sum(axis=1).sort_values(ascending=False).index, wide.sum().sort_values(ascending=False).index].fillna(0)
    figure, axes = _axes(height=1.6 + 0.34 * len(wide))
    left = np.zeros(len(wide))
    for i, key in enumerate(wide.columns):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "hatch": HATCHES[(i + i // len(COLOURS)) % len(HATCHES)]}
        axes.barh(wide.index, wide[key], left=left, label=key, edgecolor="black", linewidth=0.5, **style)
        left += wide[key].to_numpy()
    axes.set_xlabel(label)
    axes.invert_yaxis()
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _names(data: pd.DataFrame) -> pd.Series:
    return data.workload + " " + data.point + ", " + data.model + _sizes(data) + " (" + data.features + ")"


def _sizes(data: pd.DataFrame) -> pd.Series:
    """Batch size and rank of each row, where several are drawn together."""
    words = pd.Series("", index=data.index)
    if data.batch_size.nunique() > 1:
        words += ", batch " + data.batch_size.astype(str)
    if data["rank"].nunique() > 1:
        words += (", rank " + data["rank"].astype(str)).where(data["rank"].notna(), "")
    return words


def _axes(height: float) -> tuple[Figure, matplotlib.axes.Axes]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def all_figures(table: pd.DataFrame, paths: Sequence[AttributionPath]) -> dict[str, tuple[str, Figure]]:
    """File name -> (caption, figure) of everything there is material for."""
    made: dict[str, tuple[str, Figure | None]] = {}
    for path in paths:
        made[f"attribution_{path.executor}_{path.kv}_{path.first.result.pair_id}"] = (
            "Attribution: " + path.title,
            waterfall(path),
        )
    by_task = features_by_task(paths)
    made["features_by_task"] = ((features_by_task.__doc__ or "").splitlines()[0], by_task)
    drawn = {"sessions": sessions, "time_breakdown": breakdown, "launches": launches, "memory": memory, "roofline": roofline}
    drawn |= {"scaling": scaling, "losses": losses, "serving": serving}
    for name, draw in drawn.items():
        made[name] = ((draw.__doc__ or "").splitlines()[0], draw(table))
    return {name: (caption, figure) for name, (caption, figure) in made.items() if figure is not None}
