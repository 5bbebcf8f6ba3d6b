"""The grid of a sweep: axes and settings from a TOML file and the command line, and their combinations as specifications."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from rich.table import Table

from bench.config import RunOptions, RunSpec
from bench.defaults import complete
from bench.errors import UsageError
from bench.settings import settings

SHOWN = 3
"""Refused combinations that the error names; --dry-run names all."""
KINDS = {name: kind for name, kind in get_type_hints(RunSpec).items() if name in settings(RunSpec)}
AXES = {name: kind for name, kind in KINDS.items() if get_origin(kind) is not tuple}
FIXED = {**settings(RunSpec), **settings(RunOptions)}


@dataclass
class Grid:
    """axes: field -> values, in the order in which they were given; fixed, options: fields of RunSpec and RunOptions."""

    axes: dict[str, list[Any]] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Combination:
    """values: axis -> value; spec None: it cannot run, and `refused` says why."""

    values: Mapping[str, Any]
    spec: RunSpec | None
    refused: str = ""

    @property
    def name(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items())


def read_grid(file: str | None, grid: Sequence[str]) -> Grid:
    """The axes and settings of a TOML file, and the axes of --grid, which win over the file's."""
    found = Grid() if file is None else _read_file(Path(file))
    for text in grid:
        name, _, values = text.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        found.axes[name] = [typed(name, one.strip(), f"--grid {text}") for one in values.split(",")]
    if not found.axes:
        raise UsageError("sweep: no axis; give --grid NAME=VALUE,VALUE or a TOML file with a table `grid`")
    for name, there in found.axes.items():
        if len(set(map(str, there))) < len(there):
            raise UsageError(f"--grid {name}: a value is there twice; give every value once")
    return found


def _read_file(path: Path) -> Grid:
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML ({error})") from None
    axes, found = data.pop("grid", {}), Grid()
    if not isinstance(axes, dict) or not all(isinstance(values, list) and values for values in axes.values()):
        raise UsageError(f"{path}: grid must be a table of lists, such as batch_size = [1, 4, 16]")
    for spelled, values in axes.items():
        name = spelled.replace("-", "_")
        found.axes[name] = [typed(name, value, f"{path}: grid.{name}") for value in values]
    for spelled, value in data.items():
        name = spelled.replace("-", "_")
        if name not in FIXED:
            raise UsageError(f"{path}: {name} is no setting of a run; its settings are {', '.join(FIXED)}")
        of_spec = name in settings(RunSpec)
        kind = (KINDS if of_spec else get_type_hints(RunOptions))[name]
        (found.fixed if of_spec else found.options)[name] = _validated(kind, value, f"{path}: {name}")
    return found


def typed(name: str, value: Any, where: str) -> Any:
    """A value of an axis in the type of its field; UsageError says where it stands."""
    if name not in AXES:
        raise UsageError(f"{where}: {name} is no axis; choose from {', '.join(AXES)}")
    return _validated(AXES[name], value, where)


def _validated(kind: Any, value: Any, where: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"].lower()
        raise UsageError(f"{where}: {value!r} does not fit; {reason}") from None


def combinations(axes: Mapping[str, list[Any]], fixed: Mapping[str, Any]) -> list[Combination]:
    """All of them, the last axis fastest. UsageError where two are the same run under different names."""
    found: list[Combination] = []
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        try:
            found.append(Combination(chosen, complete({**fixed, **chosen})))
        except UsageError as error:
            found.append(Combination(chosen, None, str(error)))
    seen: dict[str, Combination] = {}
    for one in (one for one in found if one.spec):
        if (other := seen.setdefault(repr(one.spec), one)) is not one:
            raise UsageError(f"{other.name} and {one.name} are the same run; leave one of them out")
    return found


def refusals(found: Sequence[Combination]) -> str:
    refused = [one for one in found if one.spec is None]
    words = [f"{one.name} ({one.refused})" for one in refused[:SHOWN]]
    words += [f"{len(refused) - SHOWN} more (--dry-run lists them)"] if len(refused) > SHOWN else []
    advice = "change the grid" if len(refused) == len(found) else "change the grid, or leave them out with --skip-refused"
    return f"{len(refused)} of {len(found)} combinations cannot run: {'; '.join(words)}; {advice}"


def plan(found: Sequence[Combination], sessions: int) -> Table:
    table = Table(*found[0].values, "sessions", title=f"{len(found)} combinations")
    table.add_column("refused", overflow="fold")
    for one in found:
        table.add_row(*map(str, one.values.values()), str(sessions if one.spec else 0), one.refused)
    return table
