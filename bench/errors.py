"""What bad input looks like to the person who typed it. The ground floor: imports nothing of the project."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input: one clear line naming the option, the value, what was expected and what to do. Exit code 2."""


def option(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")
