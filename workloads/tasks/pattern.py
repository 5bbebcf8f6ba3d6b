"""Text with the names of columns in braces, as a user types it: "{text} It was{option}"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from bench.errors import UsageError

ESCAPES = {"n": "\n", "t": "\t"}


@dataclass(frozen=True)
class Pattern:
    """pieces: some text, and the column that follows it, or None. \\n is typed for a new line, {{ for a brace."""

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> list[str]:
        return [column for _, column in self.pieces if column is not None]

    def fill(self, row: Mapping[str, Any]) -> str:
        return "".join(text + ("" if column is None else str(row[column])) for text, column in self.pieces)

    def around(self, slot: str) -> tuple[Pattern, Pattern]:
        """What stands before a column, and what stands after it."""
        at = [column for _, column in self.pieces].index(slot)
        return Pattern((*self.pieces[:at], (self.pieces[at][0], None))), Pattern(self.pieces[at + 1 :])


def parse(option: str, spelled: str) -> Pattern:
    """UsageError, naming the command line's option, for braces that hold anything but the name of a column."""
    try:
        found = [*Formatter().parse(spelled)]
    except ValueError as error:
        raise UsageError(f"{option} {spelled}: {str(error).lower()}; write {{column}}, and {{{{ for a brace") from None
    for _, column, form, conversion in found:
        if column is not None and (not column or form or conversion):
            raise UsageError(f"{option} {spelled}: braces hold the name of a column and nothing else, as in {{text}}")
    return Pattern(tuple((unescaped(text), column) for text, column, _, _ in found))


def unescaped(text: str) -> str:
    """A shell hands \\n over as two characters."""
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), text)
