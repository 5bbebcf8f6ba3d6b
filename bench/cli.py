"""The command line: option names, defaults and exit codes. What a verb does is in bench.commands and imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from bench.cli_options import ExportFormat, Format, Results, State, described, of_field, takes
from bench.cli_scale import scale
from bench.cli_serve import serve, serve_bench
from bench.config import RunOptions, RunSpec
from bench.defaults import MOVABLE, PLACES
from bench.errors import UsageError, option, program
from bench.errors import command as typed
from bench.program import call
from bench.registry import EXECUTORS
from bench.settings import MEASURE, METHOD, WHAT, settings

OF_A_POINT = ("directions", "upstream", "steps")
ABLATED = [name for name, found in settings(RunSpec).items() if found.panel in (WHAT, METHOD) and name not in OF_A_POINT]
"""What all points of an ablation share; their features and how they are measured is its own."""
OF_A_RUN = ("workload", "learning_rate", "eps", "seed", "directions", "upstream")
RACED = [name for name, found in settings(RunSpec).items() if found.panel in (WHAT, METHOD) and name not in OF_A_RUN]
RACED += ["until", "eval_every"]
"""What all runs of a race share; what is not theirs to choose is picked by the grid, or an algorithm's own."""


app = typer.Typer(
    name="bench",
    help="Benchmark and profile zeroth-order fine-tuning as an inference workload.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
@takes(RunSpec, into="given")
@takes(RunOptions, into="options")
def run(
    context: typer.Context,
    given: dict[str, Any],
    options: dict[str, Any],
    executor: Annotated[
        list[str] | None,
        of_field(RunSpec, "executor", help="What runs the steps; may be repeated, then sessions alternate."),
    ] = None,
    resume: Annotated[
        str | None,
        described("Go on with an interrupted run: its id, journal or result file.", "none", panel=MEASURE, metavar="RUN"),
    ] = None,
) -> None:
    """Run one point of the matrix in fresh processes and write a result file for each executor."""
    if resume is not None:
        from bench.commands.resume import resume as go_on

        if beside := _typed(context) - {"resume", "results", "timeout_s", *MOVABLE}:
            names = ", ".join(sorted(map(option, beside)))
            raise UsageError(f"--resume {resume}: the run keeps its own options; leave out {names}")
        raise typer.Exit(go_on(resume, given, **options))
    from bench.commands.run import run as command

    raise typer.Exit(command(given, options, executors=executor or ["vllm"]))


@app.command()
@takes(RunSpec, into="given")
@takes(RunOptions, into="options", sessions="3")
def sweep(
    given: dict[str, Any],
    options: dict[str, Any],
    file: Annotated[
        str | None,
        typer.Argument(help="Settings of `run`, and a table `grid` of lists.", show_default="none", metavar="[FILE.toml]"),
    ] = None,
    grid: Annotated[
        list[str] | None, described("An axis, as batch_size=1,4,16; may be repeated.", "none", panel=WHAT, metavar="NAME=V,V")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the combinations and stop.", show_default="no")] = False,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Leave out what a cell cannot honour.", show_default="no")
    ] = False,
) -> None:
    """Every combination of some settings, sessions interleaved; a table and a figure for each axis."""
    from bench.commands.sweep import sweep as command

    raise typer.Exit(command(given, options, file=file, grid=grid or [], dry_run=dry_run, skip_refused=skip_refused))


def _typed(context: typer.Context) -> set[str]:
    """Names of the options that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


@app.command()
def compare(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Result files or folders; with --revisions: --, then options of `run`.", show_default="results"),
    ] = None,
    reference: Annotated[
        str | None, described("Executor the ratios are against.", "official, or the slowest", metavar="|".join(EXECUTORS))
    ] = None,
    metric: Annotated[
        str,
        described(
            "What is compared; time-to-target: of runs with --until; ttft: of serve-bench.",
            "step",
            metavar="step|time-to-target|ttft",
        ),
    ] = "step",
    format: Annotated[Format, described("How to print; markdown, csv and json go to stdout.", "table")] = Format.table,
    fail_below: Annotated[float | None, described("Exit with 1 if a ratio is below this.", "never", metavar="RATIO")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every run instead of the newest of each point.", show_default="no")
    ] = False,
    baseline: Annotated[
        list[str] | None, described("Earlier results; exit with 1 if a point is slower now.", "none", metavar="PATH")
    ] = None,
    revisions: Annotated[
        tuple[str, str] | None,
        described("Measure two commits here; exit with 1 if B is slower.", "none", metavar="A B"),
    ] = None,
    rounds: Annotated[int, described("Sessions of each revision.", "5")] = 5,
    results: Results = "results",
) -> None:
    """Step times, ratios to a reference with their confidence intervals, and verdicts, of what may be compared."""
    from bench.commands.compare import run_compare

    how: dict[str, Any] = {"format": format.value, "fail_below": fail_below, "every": every, "by": metric}
    how |= {"baseline": baseline or [], "revisions": revisions, "rounds": rounds, "results": results}
    raise typer.Exit(run_compare(paths or [], reference=reference, **how))


@app.command()
@takes(RunSpec, PLACES, into="moved", **dict.fromkeys(PLACES, "where the run had it"))
def export(
    moved: dict[str, Any],
    run: Annotated[str, typer.Argument(help="Id, journal or result file of a run.", metavar="RUN")],
    output: Annotated[str, typer.Option(help="New folder for the files.", metavar="DIR")],
    format: Annotated[ExportFormat, described("peft: a LoRA adapter; merged: the whole model.", "peft")] = ExportFormat.peft,
    rank: Annotated[int | None, described("Rank of the adapter, reached by SVD.", "the sum over V's epochs")] = None,
    state: Annotated[State | None, described("best: by dev loss; last.", "best if --eval-every kept one, else last")] = None,
    results: Results = "results",
) -> None:
    """The state a run has trained as a PEFT adapter or merged Hugging Face weights, redone from its journal."""
    from bench.commands.export import export as command

    chosen = state.value if state else None
    raise typer.Exit(command(run, moved, format=format.value, output=output, rank=rank, state=chosen, results=results))


@app.command("list")
def list_command(
    verbose: Annotated[
        bool, described("Also the formulas of the algorithms and the lengths of the tasks' examples.", "no")
    ] = False,
) -> None:
    """Workloads, executors and what each cell supports, models, tasks and recorders."""
    from bench.commands.list import list_all

    raise typer.Exit(list_all(verbose=verbose))


@app.command()
def doctor(results: Results = "results") -> None:
    """What this machine can run, and how to mend what is missing."""
    from bench.commands.doctor import doctor as command

    raise typer.Exit(command(results))


@app.callback()
def common(debug: Annotated[bool, described("Show the traceback of an unexpected error.", "no")] = False) -> None:
    """Benchmark and profile zeroth-order fine-tuning as an inference workload."""


@app.command()
@takes(RunSpec, ABLATED, into="given")
def ablate(
    given: dict[str, Any],
    executor: Annotated[str, described("Whose features are switched.", "vllm", panel=WHAT, metavar="eager|vllm")] = "vllm",
    rounds: Annotated[int, described("Blocks of each point.", "5", panel=MEASURE)] = 5,
    steps: Annotated[int, described("Timed steps in a block.", "5", panel=MEASURE)] = 5,
    profile: Annotated[bool, described("Profile each point after the blocks.", "yes", panel=MEASURE)] = True,
    quick: Annotated[bool, described("3 blocks of 2 steps, no profiles: to see that it runs.", "no", panel=MEASURE)] = False,
    timeout: Annotated[float, described("Seconds for the whole run.", "3600", panel=MEASURE)] = 3600.0,
    results: Results = "results",
) -> None:
    """The factorial over batching, KV handling and LoRA form in one loaded process, then what each of them contributes."""
    from bench.commands.ablate import ablate as command

    measured: dict[str, Any] = {"rounds": rounds, "steps": steps, "profile": profile, "quick": quick}
    raise typer.Exit(command(given, executor=executor, **measured, results=results, timeout_s=timeout))


@app.command()
@takes(RunSpec, ["weights", "device"], into="given", weights="random")
def reproduce(
    given: dict[str, Any],
    name: Annotated[str, typer.Argument(help="core-step, end-to-end, factorized or all.", metavar="NAME")] = "all",
    models: Annotated[
        list[str] | None, described("A model; may be repeated.", "1.3b to 13b on a GPU, 125m on a CPU", metavar="MODEL")
    ] = None,
    batch_sizes: Annotated[str | None, described("Batch sizes of core-step.", "16; on a GPU 16,32,64,128", metavar="N,N")] = None,
    steps: Annotated[int | None, described("Steps of a run (of a block for core-step).", "10; end-to-end 20000")] = None,
    budget: Annotated[float, described("Minutes this call may take; the same call again goes on.", "60")] = 60.0,
    results: Results = "results",
) -> None:
    """What the paper's tables need, at the sizes that fit here, within a budget; our figures beside the paper's."""
    from bench.commands.reproduce import reproduce as command

    measured: dict[str, Any] = {"models": models or [], "batch_sizes": batch_sizes, "steps": steps}
    raise typer.Exit(command(name, given, **measured, budget=budget, results=results))


@app.command()
@takes(RunSpec, RACED, into="given", until="none; it has to be given")
def race(
    context: typer.Context,
    given: dict[str, Any],
    workload: Annotated[
        list[str] | None, of_field(RunSpec, "workload", help="ZO algorithm; may be repeated.", show_default="all that there are")
    ] = None,
    executor: Annotated[str, of_field(RunSpec, "executor")] = "vllm",
    seeds: Annotated[int, described("Seeds that race at the settings picked, from 0 on.", "5", panel=MEASURE)] = 5,
    lr_grid: Annotated[
        str, described("Learning rates tried, as multiples of each workload's own.", "0.3,1,3", panel=METHOD, metavar="X,X")
    ] = "0.3,1,3",
    eps_grid: Annotated[str, described("Values of eps tried.", "1e-3,1e-2", panel=METHOD, metavar="X,X")] = "1e-3,1e-2",
    tuning_steps: Annotated[
        int | None, described("Steps of a run of the grid, warm-up included.", "as many as in the race", panel=METHOD)
    ] = None,
    timeout: Annotated[float, described("Seconds after which a run is ended.", "3600", panel=MEASURE)] = 3600.0,
    results: Results = "results",
) -> None:
    """Several algorithms on their way to one target, each at the best settings of a grid; the same call goes on."""
    from bench.commands.race import race as command

    how: dict[str, Any] = {"workloads": workload or [], "seeds": seeds, "rates": lr_grid, "sizes": eps_grid}
    how |= {"tuning_steps": tuning_steps, "timeout_s": timeout, "results": results, "command": typed(*context.obj)}
    raise typer.Exit(command(given | {"executor": executor}, **how))


app.command()(serve)
app.command("serve-bench")(serve_bench)
app.command()(scale)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line. Exit codes: 0 done, 1 failed or regression, 2 usage; one line on stderr for 1 and 2."""
    return call(app, sys.argv[1:] if argv is None else argv, program())
