"""`list`: what there is to run. Reads tables and classes only, so it answers before torch could be imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from bench.api import FACTORED, Workload
from bench.entry import ExecutorEntry, in_adapters
from bench.errors import UsageError
from bench.registry import EXECUTORS, RECORDERS, TASKS, WORKLOADS, executor_entry, workload_class
from bench.registry import Table as Names
from bench.terminal import stderr_console


def list_all(*, verbose: bool = False) -> int:
    """Tables on stderr, the same as one JSON object on stdout. `verbose`: the algorithms' formulas, the tasks' lengths, and the
    families of models that an executor does not run."""
    from workloads.models.published import MODELS

    console, broken = stderr_console(), dict[str, str]()
    workloads = {name: found for name in WORKLOADS if (found := _try(workload_class, name, broken))}
    executors = {name: found for name in EXECUTORS if (found := _try(executor_entry, name, broken))}
    console.print(methods(workloads))
    table = Table(
        "workload", "executor", "--scope", "--batching", "--kv", "--lora", "--directions", "largest --rank", title="Cells"
    )
    supported: dict[str, dict[str, Any]] = {name: {} for name in executors}
    for workload, kind in workloads.items():
        for name, entry in executors.items():
            found = cell(kind, entry)
            if found is None:
                continue
            supported[name][workload] = found
            listed = (", ".join(found[field]) for field in ("scope", "batching", "kv", "lora", "directions"))
            most = str(found["max_rank"] or "any") if kind.kind in FACTORED else "-"
            table.add_row(_named(WORKLOADS, workload), _named(EXECUTORS, name), *listed, most)
        table.add_section()
    console.print(table)
    loops = Table("executor", "--loop", "--dtype on a CPU", "--dtype on a GPU", "--quantization", title="Executors")
    for name, entry in executors.items():
        c = entry.capabilities
        loops.add_row(name, *(", ".join(values) for values in (c.loop, c.dtypes["cpu"], c.dtypes["cuda"], c.quantization)))
    console.print(loops)
    console.print("--lora dense holds one state at a time: it goes with --batching sequential")
    console.print("dense directions take --lora unfused or fused under --scope adapter, and under no other")
    models = Table("model", "layers", "hidden", "heads", "weights", title="Models")
    for name, info in MODELS.items():
        sizes = map(str, info.sizes) if info.config else ("", "", "")
        weights = info.hub_id or ("random weights, to measure speed" if info.config else "built here on first use")
        models.add_row(name, *sizes, weights)
    console.print(models)
    console.print("any hub id or local path of a causal LM that vLLM serves with LoRA is a model too")
    for label, names in (("tasks", TASKS), ("recorders", RECORDERS)):
        console.print(f"{label}: {', '.join(_named(names, name) for name in names)}", soft_wrap=True)
    for text in broken.values():
        console.print(f"left out: {text}", soft_wrap=True)
    if verbose:
        console.print(formulas(workloads, executors))
        from bench.commands.list_tasks import task_table

        console.print(task_table())
        console.print("lengths are those of the generated stand-ins, which have about the data sets' own")
        for entry in executors.values():
            for line in entry.families() if entry.families else ():
                console.print(line, soft_wrap=True)
    found_all: dict[str, Any] = {
        "workloads": {
            name: {"kind": kind.kind, "forwards": kind.forwards, "keeps": kind.keeps, "summary": summary(kind)}
            | {"formula": kind.formula, "source": kind.source}
            for name, kind in workloads.items()
        },
        "executors": {
            name: {"workloads": supported[name], "loop": entry.capabilities.loop, "dtype": entry.capabilities.dtypes}
            for name, entry in executors.items()
        },
        "models": list(MODELS),
        "tasks": list(TASKS),
        "recorders": list(RECORDERS),
        "packages": {name: origin for names in (WORKLOADS, EXECUTORS, TASKS, RECORDERS) for name, origin in _outside(names)},
        "broken": broken,
    }
    print(json.dumps(found_all, separators=(",", ":")))
    return 0


def methods(workloads: Mapping[str, type[Workload]]) -> Table:
    """What each workload does, what a step of it costs, and what it keeps."""
    headings = ("workload", "directions", "forwards a step", "kept between steps", "what it does")
    table = Table(*headings, title="Workloads (q: --queries)")
    for name, kind in workloads.items():
        table.add_row(_named(WORKLOADS, name), kind.kind, kind.forwards, kind.keeps or "-", summary(kind))
    return table


def formulas(workloads: Mapping[str, type[Workload]], executors: Mapping[str, ExecutorEntry]) -> Table:
    """The step of each algorithm, where it is from, what it costs and keeps, and which executor runs it in which scope."""
    headings = ("workload", "step", "source", "forwards", "kept", "runs on")
    table = Table(*headings, title="Algorithms (L: losses, g: slope along Z, q: --queries)")
    for name, kind in workloads.items():
        cells = {other: found for other, entry in executors.items() if (found := cell(kind, entry))}
        runs = "; ".join(f"{other}: {', '.join(found['scope'])}" for other, found in cells.items())
        table.add_row(_named(WORKLOADS, name), kind.formula or "-", kind.source or "-", kind.forwards, kind.keeps or "-", runs)
    return table


def summary(workload: type[Workload]) -> str:
    """The first line of the module that has it, where formula and source stand."""
    return (sys.modules[workload.__module__].__doc__ or "").strip().split("\n")[0]


def cell(workload: type[Workload], entry: ExecutorEntry) -> dict[str, Any] | None:
    """What an executor supports of a workload, by option; None where it does not run it."""
    c = entry.capabilities
    if workload.kind not in c.scopes or (workload.keeps and not c.means):
        return None
    scopes = c.scopes[workload.kind]
    adapter = any(in_adapters(workload.kind, scope) for scope in scopes)
    return {
        "scope": scopes,
        "batching": c.batching if adapter else ("sequential",),
        "kv": c.kv,
        "lora": c.lora if adapter else ("dense",),
        "directions": c.directions if c.publishes(workload, 1) else ("shared",),
        "max_rank": c.max_rank.get(workload.kind),
    }


def _try(look: Any, name: str, broken: dict[str, str]) -> Any:
    """What a name stands for; a package that breaks is noted and costs its own names alone."""
    try:
        return look(name)
    except UsageError as error:
        broken[name] = str(error)
        return None


def _named(names: Names, name: str) -> str:
    origin = names.origin(name)
    return f"{name} ({origin})" if origin else name


def _outside(names: Names) -> Iterator[tuple[str, str]]:
    return ((name, origin) for name in names if (origin := names.origin(name)))
