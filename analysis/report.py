"""One self-contained HTML page from result files, and each of its figures as a PNG beside it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from analysis.accounting import THEIRS, accounts
from analysis.compare import compare
from analysis.figures import all_figures
from analysis.metrics import METRICS
from analysis.path import paths
from analysis.readings import readings
from analysis.rendering import cells, headings
from analysis.runs import Run
from analysis.table import tidy
from bench.errors import UsageError


def write_report(runs: Sequence[Run], output: Path, command: str) -> Path:
    """Write output/report.html and output/*.png; returns the page. `command` is what regenerates it."""
    import matplotlib.pyplot as plt

    timed, beside = [run for run in runs if run.sessions and not run.served], [run for run in runs if run.served]
    if not timed and not beside:
        raise UsageError("report: none of the files has timed sessions")
    output.mkdir(parents=True, exist_ok=True)
    found = paths(timed)
    figures = []
    for name, (caption, figure) in all_figures(tidy([*timed, *beside]), found).items():
        figure.savefig(output / f"{name}.png", dpi=130)
        figures.append({"name": name, "caption": caption, "svg": _svg(figure, name)})
        plt.close(figure)
    tables = (*compare(timed).tables, *compare(beside, by=METRICS["ttft"]).tables)
    environment = jinja2.Environment(loader=jinja2.PackageLoader("analysis", "."), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.j2").render(
        title=", ".join(dict.fromkeys(f"{run.spec['workload']} on {run.spec['model']}" for run in (*timed, *beside))),
        devices=sorted({str(run.result.environment.get("device")) for run in (*timed, *beside)}),
        tables=[(t.title, headings(t), [cells(t, row) for row in t.rows]) for t in tables],
        paths=found,
        readings=[line for reading in readings(timed) for line in reading.lines],
        accounts=[line for account in accounts(timed) for line in account.lines],
        theirs=THEIRS,
        figures=figures,
        runs=[*timed, *beside],
        command=command,
    )
    target = output / "report.html"
    target.write_text(page)
    return target


def _svg(figure: Figure, name: str) -> str:
    """The figure as an inline SVG element; ids get the figure's name, since a page holds several."""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
