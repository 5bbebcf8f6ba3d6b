"""The command line: option names, defaults and exit codes. What a verb does is in bench.commands and imported when it runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer

from bench.cli_options import FEATURES, MEASURE, METHOD, WHAT, ExportFormat, Format, Results, State, choice, described
from bench.config import CHOICES
from bench.errors import UsageError, option
from bench.registry import EXECUTORS, RECORDERS, TASKS, WORKLOADS

app = typer.Typer(
    name="bench",
    help="Benchmark and profile zeroth-order fine-tuning as an inference workload.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    context: typer.Context,
    workload: Annotated[str, described("ZO algorithm.", "lozo", panel=WHAT, metavar="|".join(WORKLOADS))] = "lozo",
    executor: Annotated[
        list[str] | None,
        described(
            "What runs the steps; may be repeated, then sessions alternate.", "vllm", panel=WHAT, metavar="|".join(EXECUTORS)
        ),
    ] = None,
    model: Annotated[str, described("Name in `list`, hub id or local path of a causal LM.", "opt-tiny", panel=WHAT)] = "opt-tiny",
    weights: Annotated[
        str | None, choice("weights", "pretrained: hub or path; random: seeded, same shapes.", "auto: pretrained", WHAT)
    ] = None,
    task: Annotated[str | None, described("Task that gives the examples.", "sst2", panel=WHAT, metavar="|".join(TASKS))] = None,
    data: Annotated[
        str | None, described("Data file: parquet, jsonl, tsv or csv.", "the task's own", panel=WHAT, metavar="PATH")
    ] = None,
    data_seed: Annotated[int | None, described("Seed of the train and dev subset.", "0", panel=WHAT)] = None,
    scope: Annotated[
        str | None, choice("scope", "lora: linear layers inside the blocks; full: every parameter.", "lora", WHAT)
    ] = None,
    dtype: Annotated[
        str | None, choice("dtype", "Type of weights and activations.", "float16 on a GPU, float32 on a CPU", WHAT)
    ] = None,
    device: Annotated[
        str, described("Where to run.", "auto: a GPU if there is one", panel=WHAT, metavar="auto|cpu|cuda")
    ] = "auto",
    trust_remote_code: Annotated[
        bool, described("Let a hub model or data set run its own Python code.", "no", panel=WHAT)
    ] = False,
    steps: Annotated[int | None, described("Timed core steps of a session.", "100; opt-tiny: its own", panel=METHOD)] = None,
    batch_size: Annotated[int | None, described("Examples in a minibatch.", "16", panel=METHOD)] = None,
    learning_rate: Annotated[float | None, described("Constant learning rate.", "1e-6; opt-tiny: its own", panel=METHOD)] = None,
    eps: Annotated[float | None, described("Size of the perturbation.", "1e-3", panel=METHOD)] = None,
    rank: Annotated[int | None, described("Rank of a direction.", "2; factorized: 128", panel=METHOD)] = None,
    interval: Annotated[int | None, described("Steps for which LoZO keeps V.", "50", panel=METHOD)] = None,
    queries: Annotated[int | None, described("Directions measured in a step.", "1", panel=METHOD)] = None,
    seed: Annotated[int | None, described("Seed of directions and batches.", "0", panel=METHOD)] = None,
    directions: Annotated[
        str | None,
        choice(
            "directions",
            "shared: the same Z for every executor; upstream: upstream's stream.",
            "shared; official: upstream",
            METHOD,
        ),
    ] = None,
    upstream: Annotated[
        str | None, described("Checkout of upstream's code, for the official executor.", "none", panel=METHOD, metavar="PATH")
    ] = None,
    batching: Annotated[
        str | None, choice("batching", "One forward per probe, or all probes in one.", "paired; official: sequential", FEATURES)
    ] = None,
    kv: Annotated[
        str | None, choice("kv", "One row per answer option, or each prompt once.", "shared; official: recompute", FEATURES)
    ] = None,
    lora: Annotated[
        str | None,
        choice("lora", "How a probe reaches the weights.", "fused; official and mezo: dense", FEATURES),
    ] = None,
    loop: Annotated[
        str | None,
        choice("loop", "Through the engine's API, or inside its worker.", "resident on vllm, else requests", FEATURES),
    ] = None,
    sessions: Annotated[int | None, described("Fresh processes for each executor.", "3; opt-tiny: 1", panel=MEASURE)] = None,
    warmup: Annotated[int | None, described("Steps before the timed ones.", "10", panel=MEASURE)] = None,
    timeout: Annotated[float, described("Seconds after which a session is ended.", "3600", panel=MEASURE)] = 3600.0,
    profile: Annotated[
        bool, typer.Option("--profile/--no-profile", help="A separate profiled pass after the timing.", rich_help_panel=MEASURE)
    ] = True,
    record: Annotated[
        list[str] | None,
        described("Recorder of the profiled pass; may be repeated.", "all", panel=MEASURE, metavar="|".join(RECORDERS)),
    ] = None,
    trace: Annotated[bool, described("Keep a trace of the profiled pass for Perfetto.", "no", panel=MEASURE)] = False,
    eval_every: Annotated[
        int | None,
        described(
            "Evaluate before, after and each N steps; 0: never.", "0; opt-tiny: before and after", panel=MEASURE, metavar="N"
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        described("Save the state each N steps, so that resuming is quick; 0: never.", "0", panel=MEASURE, metavar="N"),
    ] = None,
    resume: Annotated[
        str | None,
        described("Go on with an interrupted run: its id, journal or result file.", "none", panel=MEASURE, metavar="RUN"),
    ] = None,
    results: Results = "results",
) -> None:
    """Run one point of the matrix in fresh processes and write a result file for each executor."""
    given = {
        name: value
        for name, value in locals().items()
        if name not in ("context", "resume", "executor", "sessions", "timeout", "profile", "record", "trace", "results")
    }
    if resume is not None:
        from bench.commands.resume import resume as go_on

        typed = _typed(context)
        if beside := typed - {"resume", "results", "timeout"}:
            names = ", ".join(sorted(map(option, beside)))
            raise UsageError(f"--resume {resume}: the run keeps its own options; leave out {names}")
        raise typer.Exit(go_on(resume, timeout_s=timeout if "timeout" in typed else None, results=results))
    from bench.commands.run import run as command

    raise typer.Exit(
        command(
            given,
            executors=executor or ["vllm"],
            sessions=sessions,
            timeout_s=timeout,
            profile=profile,
            record=tuple(record or ()),
            trace=trace,
            results=results,
        )
    )


def _typed(context: typer.Context) -> set[str]:
    """Names of the options that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


@app.command()
def compare(
    paths: Annotated[list[str] | None, typer.Argument(help="Result files or folders of them.", show_default="results")] = None,
    reference: Annotated[
        str | None, described("Executor the ratios are against.", "official, or the slowest", metavar="|".join(EXECUTORS))
    ] = None,
    format: Annotated[Format, described("How to print; markdown and json go to stdout.", "table")] = Format.table,
    fail_below: Annotated[float | None, described("Exit with 1 if a ratio is below this.", "never", metavar="RATIO")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every run instead of the newest of each point.", show_default="no")
    ] = False,
) -> None:
    """Medians, ratios to a reference with their confidence intervals, and verdicts, of what may be compared."""
    from bench.commands.compare import run_compare

    raise typer.Exit(run_compare(paths or [], reference=reference, format=format.value, fail_below=fail_below, every=every))


@app.command()
def export(
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
    raise typer.Exit(command(run, format=format.value, output=output, rank=rank, state=chosen, results=results))


@app.command("list")
def list_command(
    verbose: Annotated[bool, described("Also the lengths of the tasks' examples.", "no")] = False,
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
def ablate(
    executor: Annotated[str, described("Whose features are switched.", "vllm", metavar="eager|vllm")] = "vllm",
    workload: Annotated[str, described("ZO algorithm.", "lozo", metavar="lozo|factorized")] = "lozo",
    model: Annotated[str, described("Name in `list`, hub id or local path.", "opt-tiny")] = "opt-tiny",
    weights: Annotated[
        str | None, described("Where weights come from.", "auto: pretrained", metavar="|".join(CHOICES["weights"]))
    ] = None,
    device: Annotated[str, described("Where to run.", "auto: a GPU if there is one", metavar="auto|cpu|cuda")] = "auto",
    dtype: Annotated[str | None, described("Type of weights.", "float16 on a GPU, float32 on a CPU", metavar="DTYPE")] = None,
    batch_size: Annotated[int | None, described("Examples in a minibatch.", "16")] = None,
    rank: Annotated[int | None, described("Rank of the directions.", "2, factorized 128")] = None,
    rounds: Annotated[int, described("Blocks of each point.", "5")] = 5,
    steps: Annotated[int, described("Timed steps in a block.", "5")] = 5,
    profile: Annotated[bool, described("Profile each point after the blocks.", "yes")] = True,
    quick: Annotated[bool, described("3 blocks of 2 steps, no profiles: to see that it runs.", "no")] = False,
    timeout: Annotated[float, described("Seconds for the whole run.", "3600")] = 3600.0,
    results: Results = "results",
) -> None:
    """The factorial over batching, KV handling and LoRA form in one loaded process, then what each of them contributes."""
    from bench.commands.ablate import ablate as command

    given: dict[str, Any] = {"workload": workload, "model": model, "weights": weights, "device": device, "dtype": dtype}
    given |= {"batch_size": batch_size, "rank": rank}
    measured: dict[str, Any] = {"rounds": rounds, "steps": steps, "profile": profile, "quick": quick}
    raise typer.Exit(command(given, executor=executor, **measured, results=results, timeout_s=timeout))


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="core-step, end-to-end, factorized or all.", metavar="NAME")] = "all",
    models: Annotated[
        list[str] | None, described("A model; may be repeated.", "1.3b to 13b on a GPU, 125m on a CPU", metavar="MODEL")
    ] = None,
    steps: Annotated[int | None, described("Steps of a run (of a block for core-step).", "10; end-to-end 20000")] = None,
    budget: Annotated[float, described("Minutes this call may take; the same call again goes on.", "60")] = 60.0,
    weights: Annotated[str, choice("weights", "Where weights come from.", "random", MEASURE)] = "random",
    device: Annotated[str, described("Where to run.", "auto: a GPU if there is one", metavar="auto|cpu|cuda")] = "auto",
    results: Results = "results",
) -> None:
    """What the paper's tables need, at the sizes that fit here, within a budget; our figures beside the paper's."""
    from bench.commands.reproduce import reproduce as command

    where = {"weights": weights, "device": device, "results": results}
    raise typer.Exit(command(name, models=models or [], steps=steps, budget=budget, **where))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line. Exit codes: 0 done, 1 failed or regression, 2 usage; one line on stderr for 1 and 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments[:1]
    parse_error = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")  # not exported by name
    try:
        return int(app(arguments, prog_name="python -m bench", standalone_mode=False) or 0)
    except UsageError as error:
        return _complain(str(error), 2, debug)
    except parse_error as error:  # type: ignore[misc]
        return _complain(f"{_parse_message(error, arguments)}; see --help", 2, debug)
    except (typer.Abort, KeyboardInterrupt):
        return _complain("interrupted", 1, debug)
    except OSError as error:
        return _complain(str(error), 1, debug)
    except Exception as error:  # the last resort: a clear line instead of a traceback
        return _complain(f"unexpected {type(error).__name__}: {error} (python -m bench --debug ... shows where)", 1, debug)


def _parse_message(error: Any, arguments: Sequence[str]) -> str:
    """The parser's message, with the value that was typed where it leaves it out."""
    message = str(error.format_message())
    options = getattr(getattr(error, "param", None), "opts", [])
    values = [value for name, value in pairwise(arguments) if name in options]
    return message if not values or values[-1] in message else f"{values[-1]}: {message}"


def _complain(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print("error: " + " ".join(text.split()), file=sys.stderr)
    return code
