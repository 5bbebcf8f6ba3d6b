"""The options of `serve` and `serve-bench`; `bench.cli` has the other verbs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bench.cli_options import Results, described, takes
from bench.config import RunSpec
from bench.serving.settings import ServeOptions
from bench.settings import MEASURE, METHOD, WHAT, settings

NOT_SERVED: tuple[str, ...] = (
    "executor",
    "accumulate",
    "max_tokens",
    "directions",
    "upstream",
    "scope",
    "quantization",
    "weight_decay",
    "momentum",
    "momentum_state",
)
NOT_SERVED += tuple(name for name in settings(RunSpec) if name.startswith("adapter_"))
SERVED = [name for name, found in settings(RunSpec).items() if found.panel in (WHAT, METHOD) and name not in NOT_SERVED]
"""What a server can be told of its training; how it scores is its own."""
LOADED = [name for name in settings(ServeOptions) if name not in ("host", "port", "train", "policy", "state")]
"""What a server under load can be told of serving; where it listens and its policy are the benchmark's."""


@takes(RunSpec, SERVED, into="given", steps="for as long as it serves")
@takes(ServeOptions, into="options")
def serve(given: dict[str, Any], options: dict[str, Any]) -> None:
    """vLLM's OpenAI-compatible server, with training as background load: models `base` and `tuned`."""
    from bench.commands.serve import serve as command

    raise typer.Exit(command(given, options))


@takes(RunSpec, SERVED, into="given", steps="for as long as it serves")
@takes(ServeOptions, LOADED, into="options")
def serve_bench(
    given: dict[str, Any],
    options: dict[str, Any],
    rates: Annotated[
        str | None, described("Users a second.", "30, 60 and 80 % of what is served in time", panel=MEASURE, metavar="X,X")
    ] = None,
    policies: Annotated[
        str | None, described("Which take turns; off: no training.", "all", panel=MEASURE, metavar="off,none,...")
    ] = None,
    rounds: Annotated[int, described("Stretches of load of each point.", "3", panel=MEASURE)] = 3,
    seconds: Annotated[float, described("Of one stretch.", "12", panel=MEASURE)] = 12.0,
    input_tokens: Annotated[int, described("Of a prompt, give or take 30 %.", "24", panel=MEASURE)] = 24,
    output_tokens: Annotated[int, described("Of an answer, give or take 30 %.", "16", panel=MEASURE)] = 16,
    trace: Annotated[
        str | None, described("Requests of a recorded trace instead, at its own times.", "none", panel=MEASURE, metavar="PATH")
    ] = None,
    in_time: Annotated[float, described("Milliseconds to a first token that is in time.", "100", panel=MEASURE)] = 100.0,
    results: Results = "results",
) -> None:
    """What training costs the users of a live server, by policy and rate, by vLLM's own load generator; the same call goes on."""
    from bench.commands.serve_bench import plan_of
    from bench.commands.serve_bench import serve_bench as command

    plan = plan_of(rates, policies, rounds, seconds, in_time, (input_tokens, output_tokens, trace))
    raise typer.Exit(command(given, options, plan, results=results))
