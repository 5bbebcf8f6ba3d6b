"""`python -m analysis`: `report`, `losses`, `scores`, `gradients`, `slopes` PATH..., `race` FILE...: figures and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UsageError
from bench.program import call

app = typer.Typer(add_completion=False, no_args_is_help=True)
Paths = Annotated[list[str], typer.Argument(help="result files or folders")]


@app.callback()
def about(debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False) -> None:
    """Figures and reports; reads result files only."""


@app.command()
def losses(
    paths: Paths, output: Annotated[str, typer.Option(help="the picture to write; its suffix is the format")] = "losses.png"
) -> None:
    """The loss over the steps: the newest run of every executor for the workload and model that were run last."""
    from analysis.losses import draw
    from analysis.runs import load_runs

    timed = [run for run in load_runs(paths) if run.sessions and run.unit == "session"]
    if not timed:
        raise UsageError(f"{', '.join(paths)}: no run with timed steps; `python -m bench run` makes one")
    what = ("workload", "model")
    alike = [run for run in timed if all(run.spec[name] == timed[-1].spec[name] for name in what)]
    runs = list({run.point(): run for run in alike}.values())
    draw(runs, Path(output))
    print(json.dumps({"output": output, "runs": [str(run.path) for run in runs]}, separators=(",", ":")))


@app.command()
def scores(
    paths: Paths, output: Annotated[str, typer.Option(help="the picture to write; its suffix is the format")] = "scores.png"
) -> None:
    """The score on dev over the steps, a panel for each task: the newest run of every executor, workload and task."""
    from analysis.runs import load_runs
    from analysis.scores import draw

    evaluated = [run for run in load_runs(paths) if any(e.split == "dev" for s in run.sessions for e in s.evaluations)]
    if not evaluated:
        raise UsageError(f"{', '.join(paths)}: no run was evaluated on the way; `python -m bench run --eval-every N` is")
    runs = list({(run.spec["task"], run.spec["workload"], *run.point()): run for run in evaluated}.values())
    draw(runs, Path(output))
    print(json.dumps({"output": output, "runs": [str(run.path) for run in runs]}, separators=(",", ":")))


@app.command()
def scaling(
    path: Annotated[str, typer.Argument(help="file that `bench scale` has written")],
    output: Annotated[str, typer.Option(help="the picture to write; its suffix is the format")] = "scaling.png",
) -> None:
    """Efficiency against the number of replicas, measured and predicted."""
    from analysis.scaling import Scaling, draw

    draw(Scaling.read(Path(path)), Path(output))
    print(json.dumps({"output": output}, separators=(",", ":")))


@app.command()
def report(paths: Paths, output: Annotated[str, typer.Option(help="folder for report.html and the pictures")] = "report") -> None:
    """One self-contained HTML page, and every figure as a PNG."""
    from analysis.report import write_report
    from analysis.runs import load_runs

    page = write_report(load_runs(paths), Path(output), f"python -m analysis report {' '.join(paths)} --output {output}")
    print(json.dumps({"page": str(page)}, separators=(",", ":")))


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="a result file, or a trace that `run --trace` has kept")],
    b: Annotated[str, typer.Argument(help="the other one")],
    output: Annotated[str, typer.Option(help="the picture of the rooflines to write")] = "diff.png",
) -> None:
    """What two profiled steps spend their time on: buckets, kernels and operators that gained or lost, and their rooflines."""
    from analysis.diff import SHOWN, bucket_changes, changes, draw, print_diff, read_side
    from bench.terminal import stderr_console

    first, second = read_side(Path(a)), read_side(Path(b))
    print_diff(first, second, stderr_console())
    draw(first, second, Path(output))
    steps = {"a_s": first.listed["span_s"], "b_s": second.listed["span_s"]}
    buckets = {change.name: change.gained for change in bucket_changes(first, second)}
    largest = sorted(changes(first, second), key=lambda change: -abs(change.gained))[:SHOWN]
    names = [{"name": c.name, "bucket": c.bucket, "a_s": c.before, "b_s": c.after} for c in largest]
    print(json.dumps({"output": output, **steps, "gained_s": buckets, "names": names}, separators=(",", ":")))


@app.command()
def history(paths: Paths, output: Annotated[str, typer.Option(help="the picture to write")] = "history.png") -> None:
    """The amortised step over the commits that the files were made from, and what each commit changed."""
    from analysis.history import draw, print_history
    from analysis.history import history as entries
    from analysis.runs import load_runs
    from bench.terminal import stderr_console

    found = entries(load_runs(paths))
    if not found:
        raise UsageError(f"{', '.join(paths)}: no timed run that names its commit; `python -m bench run` in a checkout makes one")
    print_history(found, stderr_console())
    draw(found, Path(output))
    listed = [{"point": e.line, "commit": e.run.result.source["commit"], "step_s": e.seconds.value} for e in found]
    print(json.dumps({"output": output, "entries": listed}, separators=(",", ":")))


@app.command()
def race(
    paths: Annotated[list[str], typer.Argument(help="race files, as `python -m bench race` writes them")],
    output: Annotated[str, typer.Option(help="the picture to write; its suffix is the format")] = "race.png",
) -> None:
    """What each algorithm took to the target: a figure, and the table as Markdown."""
    from analysis.race import load, markdown
    from analysis.race_figures import draw

    found = load(paths)
    draw(found, Path(output))
    print(markdown(found))


@app.command()
def gradients(
    paths: Paths, output: Annotated[str, typer.Option(help="the picture to write; its suffix is the format")] = "gradients.png"
) -> None:
    """How good the gradient estimates are that `run --record gradient_quality` watched: a figure, and a table as Markdown."""
    from analysis.gradients import draw, markdown, watched
    from analysis.runs import load_runs

    found = watched(load_runs(paths))
    draw(found, Path(output))
    print(markdown(found))


@app.command()
def slopes(paths: Paths) -> None:
    """What fewer bits do to projected gradients: runs of `--learning-rate 0` beside the one with most bits, as Markdown."""
    from analysis.runs import load_runs
    from analysis.slopes import compared, markdown

    print(markdown(compared(load_runs(paths))))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line. Exit codes: 0 done, 1 failed, 2 usage; one line on stderr for 1 and 2."""
    return call(app, sys.argv[1:] if argv is None else argv, "python -m analysis")
