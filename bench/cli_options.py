"""Options of the verbs, made from the fields of the specification (bench.config), and the few types that verbs share.

`@takes(...)` gives a command the options of those fields; how to add a field, and so an option, stands in bench.config.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from bench.config import RunOptions
from bench.registry import EXECUTORS, RECORDERS, TASKS, WORKLOADS
from bench.settings import settings

NAMES = {"workload": WORKLOADS, "executor": EXECUTORS, "task": TASKS, "record": RECORDERS}
"""Fields whose values are names in the registry."""


class Format(StrEnum):
    table = "table"
    markdown = "markdown"
    csv = "csv"
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


def of_field(kind: type, name: str, **changed: Any) -> Any:
    """The option of a field; `changed` replaces parts of it."""
    found = settings(kind)[name]
    words: dict[str, Any] = {"help": found.help, "show_default": found.shown, "rich_help_panel": found.panel}
    words["metavar"] = found.metavar or "|".join(found.choices or NAMES.get(name, ())) or None
    return typer.Option(*([found.spelled] if found.spelled else []), **(words | changed))


Results = Annotated[str, of_field(RunOptions, "results", rich_help_panel=None)]


def takes(kind: type, names: Sequence[str] | None = None, *, into: str, **shown: str) -> Callable[[Any], Any]:
    """Give a command an option for each of these fields (default: all) of `kind`, which is RunSpec or RunOptions.

    The command's parameter `into` becomes a dict, field -> value, of what was typed. A parameter of the command with a field's
    name is an option of its own in place of the field's. shown: the default in words where the command has another one.
    """
    chosen = [name for name in settings(kind) if names is None or name in names]

    def derive(command: Callable[..., None]) -> Callable[..., None]:
        own = {name: p.replace(kind=p.KEYWORD_ONLY) for name, p in inspect.signature(command, eval_str=True).parameters.items()}
        del own[into]
        made = {name: _parameter(kind, name, shown.get(name)) for name in chosen if name not in own}
        parameters = [own.pop(name) if name in own else made[name] for name in chosen] + list(own.values())

        @functools.wraps(command)
        def called(**arguments: Any) -> None:
            typed = {name: arguments.pop(name) for name in made}
            command(**arguments, **{into: {name: _plain(value) for name, value in typed.items() if value not in (None, [])}})

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return derive


def _parameter(kind: type, name: str, shown: str | None) -> inspect.Parameter:
    """A keyword that is None when it was not typed."""
    annotation = _hints(kind)[name]
    if get_origin(annotation) is tuple:
        annotation = list[get_args(annotation)[0]]  # type: ignore[misc]  # known only when it runs
    found = of_field(kind, name, **({"show_default": shown} if shown else {}))
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation | None, found])


_hints = functools.cache(get_type_hints)
"""Kept: half of the time that `import bench.cli` takes would otherwise go here, once for each option."""


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
