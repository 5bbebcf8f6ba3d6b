"""What ran in a profiled pass, by name, and how much arithmetic and memory traffic the shapes of its inputs ask for.

Reads a timeline, so a recorder and a kept trace give the same list; needs no torch.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.recorders.activity import Activity
from bench.recorders.buckets import Phases, classify, match
from bench.recorders.timeline import Timeline, exclusive, read_trace

KEPT = 60
"""Names that are listed; what the rest took is added up by bucket."""
NAME_LENGTH = 100
KEY = "zo_bench"
"""Of a trace: what it takes to classify its work."""
SIZES = {"double": 8, "long int": 8, "float": 4, "int": 4, "c10::Half": 2, "c10::BFloat16": 2, "short": 2}
SIZES |= {"signed char": 1, "unsigned char": 1, "bool": 1, "c10::Float8_e4m3fn": 1}
FIRST = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1, "mv": 0, "addmv": 1, "linear": 0, "mkldnn_linear": 0}
FIRST |= {"_linear_pointwise": 0, "_scaled_mm": 0, "_C::cutlass_scaled_mm": 1}  # oneDNN's, with a packed weight; of FP8
"""Product -> which input its first factor is."""


def listed(timeline: Timeline, phases: Phases, on_gpu: bool) -> dict[str, Any]:
    """Per step: `rows` of what ran (a name, its bucket, seconds, calls), `rest` of what is not listed, and the `operators` whose
    inputs' shapes are known (seconds: their own on a CPU, of the kernels they launched on a GPU; flops, bytes)."""
    windows = timeline.windows(on_gpu)
    work: Sequence[Activity] = timeline.device if on_gpu else timeline.operators
    steps = max(len(windows), 1)
    keyed = [(span, (classify(a, phases), a.name[:NAME_LENGTH], _operator(a))) for a in work for span in a.spans]
    shares, idle = exclusive(keyed, windows)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    by_operator: dict[str, float] = defaultdict(float)
    for (bucket, name, operator), microseconds in shares.items():
        seconds[bucket, name] += microseconds / 1e6 / steps
        by_operator[operator] += microseconds / 1e6 / steps
    calls: Counter[tuple[str, str]] = Counter((classify(a, phases), a.name[:NAME_LENGTH]) for a in work)
    ordered = sorted(seconds, key=lambda key: -seconds[key])
    rest: dict[str, float] = defaultdict(float)
    for key in ordered[KEPT:]:
        rest[key[0]] += seconds[key]
    return {
        "steps": len(windows),
        "on": "gpu" if on_gpu else "cpu",
        "span_s": sum(end - start for start, end in windows) / 1e6 / steps,
        "idle_s": idle / 1e6 / steps,
        "rows": [
            {"name": name, "bucket": bucket, "seconds": seconds[bucket, name], "calls": calls[bucket, name] / steps}
            for bucket, name in ordered[:KEPT]
        ],
        "rest": dict(rest),
        "operators": _operators(timeline.operators, by_operator, steps),
    }


def _operator(activity: Activity) -> str:
    """The operator that work on a GPU was launched by; itself on a CPU."""
    return activity.name if activity.kind == "operator" else activity.names[-2] if len(activity.names) > 1 else ""


def _operators(operators: Sequence[Activity], seconds: dict[str, float], steps: int) -> list[dict[str, Any]]:
    around = {id(parent) for a in operators if _works(a.name) for parent in _parents(a)}
    products = {id(parent) for a in operators if product(a.name) for parent in _parents(a)}
    flops: Counter[str] = Counter()
    traffic: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for a in operators:
        asked = needs(a.name, a.inputs)
        if asked is None or not _works(a.name) or id(a) in (products if product(a.name) else around):
            continue
        calls[a.name] += 1
        flops[a.name] += asked[0]
        traffic[a.name] += asked[1]
    known = sorted((name for name in calls if seconds.get(name, 0.0) > 0), key=lambda name: -seconds[name])[:KEPT]
    return [
        {
            "name": name,
            "seconds": seconds[name],
            "calls": calls[name] / steps,
            "flops": flops[name] / steps,
            "bytes": traffic[name] / steps,
        }
        for name in known
    ]


def _works(name: str) -> bool:
    rule = match((name,))
    return bool(product(name) or (rule and rule.work))


def _parents(activity: Activity) -> list[Activity]:
    found = []
    while (parent := activity.parent) is not None:
        found.append(parent)
        activity = parent
    return found


def product(name: str) -> bool:
    return _short(name) in FIRST or "scaled_dot_product" in name


def _short(name: str) -> str:
    return name.removeprefix("aten::").removeprefix("mkldnn::")


def needs(name: str, inputs: Sequence[tuple[Sequence[int], str]]) -> tuple[int, int] | None:
    """(flops, bytes) that an operator's inputs ask for at least: factors read and product written, or for anything else its
    inputs read and something as large as the largest written. None where no shape is known."""
    tensors = [(shape, SIZES[kind]) for shape, kind in inputs if kind in SIZES]
    if not tensors:
        return None
    short = _short(name)
    if short in FIRST and len(tensors) > FIRST[short] + 1:
        (a, size), (b, _) = tensors[FIRST[short] : FIRST[short] + 2]
        if len(a) >= 1 and len(b) >= 1:
            out = prod(a[:-1]) * (prod(b[:-1]) if "linear" in short else b[-1] if len(b) > 1 else 1)
            return 2 * out * a[-1], size * (prod(a) + prod(b) + out)
    if "scaled_dot_product" in short and len(tensors) > 2 and all(len(shape) == 4 for shape, _ in tensors[:3]):
        (q, size), (k, _), (v, _) = tensors[:3]
        batch, rows = prod(q[:2]), q[2]
        return 2 * batch * rows * k[2] * (q[3] + v[3]), size * (2 * prod(q) + prod(k) + prod(v))
    held = [prod(shape) * size for shape, size in tensors]
    return 0, sum(held) + max(held)


def read_file(path: Path) -> dict[str, Any]:
    """The list of a trace that `run --trace` has kept, or that torch.profiler wrote; UsageError where it is none."""
    try:
        data = path.read_bytes()
        trace = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        events = trace["traceEvents"]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a trace or a result file") from None
    except (ValueError, EOFError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: no trace ({type(error).__name__}: {error}); give what `run --trace` has kept") from None
    timeline = read_trace({"traceEvents": events})
    if not timeline.steps:
        raise UsageError(f"{path}: marks no step; give a trace that `run --trace` has kept")
    return listed(timeline, Phases(**trace.get(KEY, {}).get("phases", {})), bool(timeline.device))
