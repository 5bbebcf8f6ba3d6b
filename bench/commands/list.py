"""`list`: what there is to run. Reads tables only, so it answers before torch could be imported."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from rich.table import Table

from bench.capabilities import ADAPTER, CAPABILITIES, UPSTREAM
from bench.commands.terminal import stderr_console
from bench.registry import EXECUTORS, RECORDERS, TASKS, WORKLOADS

BIN = 5


def list_all(*, verbose: bool = False) -> int:
    """Tables on stderr, the same as one JSON object on stdout. `verbose` loads each task to show the lengths of its examples."""
    from workloads.models.table import MODELS

    console = stderr_console()
    table = Table(
        "workload", "executor", "--scope", "--batching", "--kv", "--lora", "--directions", "largest --rank", title="Cells"
    )
    for workload in WORKLOADS:
        for name, cell in cells(workload).items():
            listed = (", ".join(cell[field]) for field in ("scope", "batching", "kv", "lora", "directions"))
            table.add_row(workload, name, *listed, str(cell["max_rank"] or "any") if workload in ADAPTER else "-")
        table.add_section()
    console.print(table)
    loops = Table("executor", "--loop", "--dtype on a CPU", "--dtype on a GPU", title="Executors")
    for name in EXECUTORS:
        c = CAPABILITIES[name]
        loops.add_row(name, *(", ".join(values) for values in (c.loop, c.dtypes["cpu"], c.dtypes["cuda"])))
    console.print(loops)
    console.print("--lora dense holds one state at a time: it goes with --batching sequential")
    models = Table("model", "layers", "hidden", "heads", "weights", title="Models")
    for name, info in MODELS.items():
        sizes = map(str, (info.layers, info.hidden, info.heads)) if info.hub_id else ("", "", "")
        models.add_row(name, *sizes, info.hub_id or "built here on first use")
    console.print(models)
    console.print("any hub id or local path of a causal LM that vLLM serves with LoRA is a model too")
    console.print(f"tasks: {', '.join(TASKS)}\nrecorders: {', '.join(RECORDERS)}")
    if verbose:
        console.print(*histogram(), sep="\n")
    found: dict[str, Any] = {
        "workloads": list(WORKLOADS),
        "executors": {name: _supports(name) for name in EXECUTORS},
        "models": list(MODELS),
        "tasks": list(TASKS),
        "recorders": list(RECORDERS),
    }
    print(json.dumps(found, separators=(",", ":")))
    return 0


def histogram() -> Iterator[str]:
    """Words per sentence of the sst2 task: what its own source gives here, the hub's data or the generated set."""
    from bench.registry import resolve

    *splits, origin = resolve(TASKS, "--task", "sst2")(None, 0)
    yield f"sst2 ({origin}), words in a sentence:"
    for name, rows in zip(("train", "dev", "eval"), splits, strict=True):
        words = sorted(len(text.split()) for text, _ in rows)
        yield f"  {name}: {len(words)} sentences, median {words[len(words) // 2]}, mean {fmean(words):.1f}, most {words[-1]}"
        counts = Counter(n // BIN for n in words)
        for start in range(max(counts) + 1):
            bar = "#" * round(60 * counts[start] / len(words))
            yield f"    {start * BIN:3}-{start * BIN + BIN - 1:<3} {counts[start]:4} {bar}"


def cells(workload: str) -> dict[str, dict[str, Any]]:
    """What each executor supports of a workload: the values of every option that depends on both."""
    found = {}
    for name in EXECUTORS:
        c = CAPABILITIES[name]
        if workload not in c.scopes:
            continue
        adapter = workload in ADAPTER
        found[name] = {
            "scope": c.scopes[workload],
            "batching": c.batching if adapter else ("sequential",),
            "kv": c.kv,
            "lora": c.lora if adapter else ("dense",),
            "directions": c.directions if workload in UPSTREAM else ("shared",),
            "max_rank": c.max_rank.get(workload),
        }
    return found


def _supports(executor: str) -> dict[str, Any]:
    c = CAPABILITIES[executor]
    of = {workload: cells(workload)[executor] for workload in WORKLOADS if workload in c.scopes}
    return {"workloads": of, "loop": c.loop, "dtype": c.dtypes}
