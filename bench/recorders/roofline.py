"""How far a core step is from what this machine could do at best, and which side of it binds: arithmetic or memory.

Two bounds per step. `required` is the least any executor must do: each distinct prefix once per probe, the last layer for
the positions that are read (keys and values for all), every weight read once.
`executed` is what this configuration does: its padded rows, weights read once per forward, weights and adapters rewritten.
Activations, KV cache and temporaries are left out, so both are lower bounds.

Findings:
    ceilings            copy_bytes_per_s, matmul_flop_per_s (large copy, large product in the run's dtype), model_flop_per_s (the
                        model's own matrix shapes, all required tokens in one forward), and where and when they were measured
    required, executed  {"flops", "bytes", "compute_s", "memory_s", "floor_s": the larger, "binds": "compute" or "memory"}
    attainable_s        floor of `required` with the rate of the model's own shapes in place of the large product's
    timed_step_s        median seconds of a timed step, no recorder on
    achieved            required floor / timed step: 1 would be perfect
    achieved_executed   executed floor / timed step: what is lost in how the work is done, not in how much is done
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from bench.recorders import ceilings
from bench.recorders.base import BaseRecorder
from bench.recorders.shapes import ModelShapes, Required, made
from workloads.models.cache import cache_dir


class Roofline(BaseRecorder):
    """Floor time and achieved fraction of a step (see the module for the shape)."""

    name: ClassVar[str] = "roofline"
    scores: ClassVar[tuple[str, ...]] = ("losses",)
    version: ClassVar[int] = 2

    def collect(self) -> dict[str, Any]:
        context = self.context
        dtype = getattr(torch, context.spec.dtype)
        shapes = ModelShapes.of(context.source)
        least = Required.of(context.batch, len(context.probes))
        work = context.work()
        limits = measured(shapes, least, context.device, dtype, context.timed_step_s)
        whole_head = work["head_rows"] >= work["rows"] * shapes.head[0]
        read = work["forwards"] * weight_bytes(shapes, shapes.head[0] if whole_head else least.words, dtype)
        rewritten = 2 * work["weight_bytes_written"] + work["adapter_bytes_written"]
        required = bound(least.flops(shapes)["total"], weight_bytes(shapes, least.words, dtype), limits)
        executed = bound(made(shapes, work)["total"], read + rewritten, limits)
        return {
            "ceilings": limits,
            "required": required,
            "executed": executed,
            "attainable_s": max(required["flops"] / limits["model_flop_per_s"], required["memory_s"]),
            "timed_step_s": context.timed_step_s,
            "achieved": required["floor_s"] / context.timed_step_s,
            "achieved_executed": executed["floor_s"] / context.timed_step_s,
        }


def bound(flops: int, nbytes: int, limits: Mapping[str, float]) -> dict[str, Any]:
    """The roofline of one step: it takes at least its arithmetic and at least its memory traffic, whichever is longer."""
    compute_s, memory_s = flops / limits["matmul_flop_per_s"], nbytes / limits["copy_bytes_per_s"]
    return {
        "flops": flops,
        "bytes": nbytes,
        "compute_s": compute_s,
        "memory_s": memory_s,
        "floor_s": max(compute_s, memory_s),
        "binds": "compute" if compute_s >= memory_s else "memory",
    }


def weight_bytes(shapes: ModelShapes, words: int, dtype: torch.dtype) -> int:
    """Weights one forward reads at least: the body once, and `words` rows of the head."""
    return (shapes.linear_elements + words * shapes.head[1]) * dtype.itemsize


def measured(shapes: ModelShapes, least: Required, device: torch.device, dtype: torch.dtype, step_s: float) -> dict[str, Any]:
    """The three ceilings of this machine, from the cache unless a step of `step_s` seconds shows one to be too low."""
    machine, folder = ceilings.machine(device), cache_dir() / "ceilings-3"
    linears = sorted([*shape, count] for shape, count in shapes.linears.items())
    flops = least.flops(shapes)
    copied = weight_bytes(shapes, least.words, dtype) / step_s
    typed = machine | {"dtype": str(dtype)}
    parts = {
        "copy_bytes_per_s": (machine | {"what": "copy"}, lambda: ceilings.copy_bytes_per_s(device), copied),
        "matmul_flop_per_s": (
            typed | {"what": "matmul"},
            lambda: ceilings.matmul_flop_per_s(device, dtype),
            flops["total"] / step_s,
        ),
        "model_flop_per_s": (
            typed | {"what": "model", "linears": linears, "tokens": least.tokens},
            lambda: ceilings.model_flop_per_s(shapes.linears, least.tokens, device, dtype),
            flops["linear"] / step_s,
        ),
    }
    found = {name: ceilings.cached(folder, *part) for name, part in parts.items()}
    rates = {name: held["rate"] for name, held in found.items()}
    return rates | {"machine": machine, "measured_at": min(held["measured_at"] for held in found.values())}
