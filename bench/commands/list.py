"""`list`: what there is to run. Reads tables only, so it answers before torch could be imported."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.capabilities import ADAPTER, CAPABILITIES
from bench.registry import EXECUTORS, RECORDERS, TASKS, WORKLOADS


def list_all(*, verbose: bool = False) -> int:
    """Tables on stderr, the same as one JSON object on stdout. `verbose` loads each task to show the lengths of its examples."""
    from workloads.models import MODELS

    console = Console(stderr=True)
    table = Table("executor", *WORKLOADS, "batching", "kv", "lora", "loop", "dtype on cpu", "dtype on cuda", title="Executors")
    for name in EXECUTORS:
        c = CAPABILITIES[name]
        cells = [_cell(name, workload) for workload in WORKLOADS]
        table.add_row(name, *cells, *map(", ".join, (c.batching, c.kv, c.lora, c.loop, c.dtypes["cpu"], c.dtypes["cuda"])))
    console.print(table)
    console.print("workloads: scope (what moves) and how a probe reaches the weights\n", highlight=False)
    models = Table("model", "what", title="Models (besides any hub id or local path of a causal LM that vLLM serves with LoRA)")
    for name, info in MODELS.items():
        models.add_row(name, getattr(info, "note", "") or str(info))
    console.print(models)
    console.print(f"tasks: {', '.join(TASKS)}\nrecorders: {', '.join(RECORDERS)}", highlight=False)
    found: dict[str, Any] = {
        "workloads": list(WORKLOADS),
        "executors": {name: _supports(name) for name in EXECUTORS},
        "models": list(MODELS),
        "tasks": list(TASKS),
        "recorders": list(RECORDERS),
    }
    print(json.dumps(found, separators=(",", ":")))
    return 0


def _lora(executor: str, workload: str) -> tuple[str, ...]:
    return CAPABILITIES[executor].lora if workload in ADAPTER else ("dense",)


def _cell(executor: str, workload: str) -> str:
    scopes = CAPABILITIES[executor].scopes.get(workload)
    return f"{', '.join(scopes)}: {', '.join(_lora(executor, workload))}" if scopes else "-"


def _supports(executor: str) -> dict[str, Any]:
    c = CAPABILITIES[executor]
    cells = {w: {"scope": c.scopes[w], "lora": _lora(executor, w)} for w in WORKLOADS if w in c.scopes}
    return {
        "workloads": cells,
        "batching": c.batching,
        "kv": c.kv,
        "loop": c.loop,
        "directions": c.directions,
        "dtype": c.dtypes,
        "max_rank": c.max_rank,
    }
