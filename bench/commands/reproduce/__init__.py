"""`reproduce`: what the paper's tables need, on this machine, at the sizes that fit; our row beside the paper's.

Every part is resumable: the same command goes on with what is missing. `--budget` bounds one call, so that a long campaign can
be cut into calls of known length.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from bench.commands.reproduce.campaign import Campaign
from bench.defaults import pick_device
from bench.errors import UsageError
from bench.journal.store import Store
from bench.registry import known
from bench.terminal import stderr_console

PARTS = {
    "core-step": "bench.commands.reproduce.core_step",
    "end-to-end": "bench.commands.reproduce.end_to_end",
    "factorized": "bench.commands.reproduce.factorized",
}
"""Name of a part -> the module whose `run(campaign)` measures what is missing and `show(rows, console)` prints the table."""


def reproduce(
    name: str,
    given: dict[str, Any],
    *,
    models: Sequence[str],
    batch_sizes: str | None,
    steps: int | None,
    budget: float,
    results: str,
) -> int:
    """Run a part or all of them. Returns the exit code: 0 when nothing is missing, 1 when the budget ended first."""
    known(PARTS | {"all": ""}, "reproduce", name)
    if budget <= 0:
        raise UsageError(f"--budget {budget}: must be a positive number of minutes")
    given = {"weights": "random"} | given | {"device": pick_device(given.get("device", "auto"))}
    deadline = time.monotonic() + 60 * budget
    campaign = Campaign(tuple(models), sizes(batch_sizes), given, steps, deadline, Store(results), stderr_console())
    rows: dict[str, list[dict[str, Any]]] = {}
    for part in PARTS if name == "all" else (name,):
        module = import_module(PARTS[part])
        rows[part] = module.run(campaign)
        module.show(rows[part], campaign.console)
    done = all(row["done"] for part in rows.values() for row in part)
    print(json.dumps({"status": "passed" if done else "unfinished", **rows}, separators=(",", ":")))
    return 0 if done else 1


def sizes(text: str | None) -> tuple[int, ...]:
    """`16,32` as numbers; none where nothing was typed."""
    parts = text.split(",") if text is not None else []
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--batch-sizes {text}: must be whole numbers above 0 with commas between them, such as 16,32")
    return tuple(map(int, parts))
