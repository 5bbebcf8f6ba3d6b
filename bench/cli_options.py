"""How an option of the command line is declared, and the types that several verbs share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from bench.config import CHOICES


class Format(StrEnum):
    table = "table"
    markdown = "markdown"
    json = "json"


class ExportFormat(StrEnum):
    peft = "peft"
    merged = "merged"


class State(StrEnum):
    best = "best"
    last = "last"


def described(text: str, default: str, *, panel: str | None = None, metavar: str | None = None) -> Any:
    """Help that states the default in words: many defaults depend on the other options."""
    return typer.Option(help=text, show_default=default, rich_help_panel=panel, metavar=metavar)


def choice(field: str, text: str, default: str, panel: str) -> Any:
    """One of the values that a field of the specification may have."""
    return described(text, default, panel=panel, metavar="|".join(CHOICES[field]))


WHAT, FEATURES, METHOD, MEASURE = "What is run", "Features", "Method", "Measurement"
Results = Annotated[str, described("Folder of the result files; they go into its local/.", "results", metavar="DIR")]
