"""The options of `scale`; `bench.cli` has the other verbs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bench.cli_options import Results, described, takes
from bench.config import RunSpec
from bench.settings import MEASURE, SERVING, settings

OF_OTHERS = ("directions", "upstream", "steps", "queries", "shares")
SCALED = [name for name, found in settings(RunSpec).items() if found.panel not in (MEASURE, SERVING) and name not in OF_OTHERS]
"""What all points of `scale` share; every replica has a query of its own."""


@takes(RunSpec, SCALED, into="given", executor="eager", replicas="as many as this machine has cores")
def scale(
    given: dict[str, Any],
    rounds: Annotated[int, described("Blocks of each point.", "10", panel=MEASURE)] = 10,
    steps: Annotated[int, described("Timed steps in a block.", "10", panel=MEASURE)] = 10,
    links: Annotated[
        str,
        described("Round trips to try out, in ms: messages are held up so long.", "0,1,50", panel=MEASURE, metavar="MS,MS"),
    ] = "0,1,50",
    results: Results = "results",
) -> None:
    """How efficient replicas are: measured where they fit, each with a query of its own, and predicted up to 4096."""
    from bench.commands.scale import scale as command

    raise typer.Exit(command({"executor": "eager"} | given, rounds=rounds, steps=steps, links=links, results=results))
