"""From what was typed to everything that a server is made from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.api import FACTORED
from bench.config import RunSpec
from bench.defaults import WORKLOAD, complete
from bench.errors import UsageError
from bench.harness.inputs import digests, prepare
from bench.registry import WORKLOADS, known, workload_class
from bench.serving.server import Site, columns
from bench.serving.settings import ServeOptions

FIXED = {"executor": "vllm", "loop": "requests", "batching": "paired", "lora": "fused", "scope": "lora", "warmup": 0}
"""How a server scores: states are adapters. `loop` says nothing here: `--probes` does."""


def site_of(given: dict[str, Any], options: ServeOptions) -> Site:
    """Model, data and settings of a server, all checked before anything slow begins."""
    options.token()
    spec = specification(given)
    columns(spec, options)
    inputs = prepare(spec)
    return Site(spec, options, inputs.source, inputs.task, digests(inputs), spec.steps if "steps" in given else None)


def specification(given: dict[str, Any]) -> RunSpec:
    """UsageError for an algorithm whose states are no adapters, or that keeps more than its updates."""
    name = known(WORKLOADS, "--workload", given.get("workload") or WORKLOAD)
    kind = workload_class(name)
    if kind.kind not in FACTORED or kind.keeps:
        fitting = [n for n in WORKLOADS.own if (found := workload_class(n)).kind in FACTORED and not found.keeps]
        why = "its noise fits in no adapter" if kind.kind not in FACTORED else "it keeps running means"
        raise UsageError(f"--workload {name}: {why}, and a server rewrites no weights; choose one of {', '.join(fitting)}")
    if given.get("weight_decay"):
        raise UsageError(f"--weight-decay {given['weight_decay']}: a server rewrites no weights that users read; leave it out")
    if given.get("lr_schedule", "constant") != "constant" and "steps" not in given:
        raise UsageError(f"--lr-schedule {given['lr_schedule']}: say with --steps where it ends")
    spec = complete(given | FIXED)
    return replace(spec, evaluate=False)
