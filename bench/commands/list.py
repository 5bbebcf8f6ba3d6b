"""`list`: what there is to run. Reads tables only, so it answers before torch could be imported."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.capabilities import ADAPTER, CAPABILITIES
from bench.registry import EXECUTORS, RECORDERS, TASKS, WORKLOADS

BIN = 5


def list_all(*, verbose: bool = False) -> int:
    """Tables on stderr, the same as one JSON object on stdout. `verbose` loads each task to show the lengths of its examples."""
    from workloads.models import MODELS

    console = Console(stderr=True, highlight=False)
    table = Table("", *EXECUTORS, title="Executors, and the --scope each workload has on them")
    for workload in WORKLOADS:
        table.add_row(workload, *(", ".join(CAPABILITIES[name].scopes.get(workload, "-")) for name in EXECUTORS))
    table.add_section()
    for field in ("batching", "kv", "lora", "loop", "directions"):
        table.add_row(f"--{field}", *(", ".join(getattr(CAPABILITIES[name], field)) for name in EXECUTORS))
    for device in ("cpu", "cuda"):
        table.add_row(f"--dtype on {device}", *(", ".join(CAPABILITIES[name].dtypes[device]) for name in EXECUTORS))
    table.add_row("largest --rank", *(_ranks(CAPABILITIES[name].max_rank) for name in EXECUTORS))
    console.print(table)
    console.print("mezo's noise is dense and fits in no adapter: --lora dense on every executor")
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


def _lora(executor: str, workload: str) -> tuple[str, ...]:
    return CAPABILITIES[executor].lora if workload in ADAPTER else ("dense",)


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


def _ranks(most: dict[str, int]) -> str:
    return ", ".join(f"{workload} {rank}" for workload, rank in most.items()) or "any"
