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

    console = Console(stderr=True, highlight=False)
    table = Table("", *EXECUTORS, title="Executors, and what moves under each workload (how probes reach the weights)")
    for workload in WORKLOADS:
        table.add_row(workload, *(_cell(name, workload) for name in EXECUTORS), end_section=workload == list(WORKLOADS)[-1])
    for field in ("batching", "kv", "lora", "loop", "directions"):
        table.add_row(f"--{field}", *(", ".join(getattr(CAPABILITIES[name], field)) for name in EXECUTORS))
    for device in ("cpu", "cuda"):
        table.add_row(f"--dtype on {device}", *(", ".join(CAPABILITIES[name].dtypes[device]) for name in EXECUTORS))
    table.add_row("largest --rank", *(str(CAPABILITIES[name].max_rank or "any") for name in EXECUTORS))
    console.print(table)
    models = Table("model", "layers", "hidden", "heads", "weights", title="Models")
    for name, info in MODELS.items():
        sizes = map(str, (info.layers, info.hidden, info.heads)) if info.hub_id else ("", "", "")
        models.add_row(name, *sizes, info.hub_id or "built here on first use")
    console.print(models)
    console.print("any hub id or local path of a causal LM that vLLM serves with LoRA is a model too")
    console.print(f"tasks: {', '.join(TASKS)}\nrecorders: {', '.join(RECORDERS)}")
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
