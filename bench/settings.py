"""Fields of a dataclass that are options of the command line.

Such a field is the one place of its option: its `setting` says what the command line shows and what values are valid, and
`bench.cli_options` makes the options of the verbs from it. Its annotation decides how it is typed: `str`, `int` or `float` take a
value, `bool` is `--name/--no-name`, and `tuple[str, ...]` may be repeated. A field without a `setting` is no option.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

WHAT, METHOD, FEATURES, SCALE, MEASURE, SERVING = PANELS = (
    "What is run", "Method", "Features", "Scale", "Measurement", "Serving",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A field as an option. shown: its default in words, for many depend on other options; choices: all that is valid;
    least: of a whole number; spelled: the option, where it is not the field's name."""

    panel: str
    help: str
    shown: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    least: int | None = None
    spelled: str | None = None


def setting(panel: str, help: str, shown: str, default: Any = MISSING, **more: Any) -> Any:
    """A dataclass field that is an option of the command line."""
    return field(default=default, metadata={"setting": Setting(panel, help, shown, **more)})


def settings(kind: type) -> dict[str, Setting]:
    """The fields of RunSpec or RunOptions that are options, in the order in which help lists them."""
    found = {f.name: f.metadata["setting"] for f in fields(kind) if "setting" in f.metadata}
    return dict(sorted(found.items(), key=lambda item: PANELS.index(item[1].panel)))
