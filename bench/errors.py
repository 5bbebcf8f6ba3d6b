"""What bad input looks like to the person who typed it. The ground floor: imports nothing of the project."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


class UsageError(Exception):
    """Bad input: one clear line naming the option, the value, what was expected and what to do. Exit code 2."""


def option(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def program() -> str:
    """How this program is started, for a line that a person can paste."""
    return "zo-bench" if sys.argv and Path(sys.argv[0]).name == "zo-bench" else "python -m bench"


def command(*words: str) -> str:
    """A command line of this program, quoted for a shell."""
    return f"{program()} {shlex.join(words)}"
