"""What this machine can do at best, measured and kept per machine: copying memory and multiplying matrices.

A ceiling is the best of many repetitions. Matrices are larger than the caches, or so many that they do not fit together.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from bench import onednn
from bench.recorders.profile import synchronize

SECONDS = 0.3
GPU = {"copy_bytes": 1 << 30, "matmul": 8192, "cache_bytes": 256 << 20}
CPU = {"copy_bytes": 1 << 28, "matmul": 1536, "cache_bytes": 64 << 20}


def copy_bytes_per_s(device: torch.device) -> float:
    """Bytes read plus bytes written per second by a large copy."""
    size = _sizes(device)["copy_bytes"]
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source), device)


def matmul_flop_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Rate of a large square matrix product."""
    n = _sizes(device)["matmul"]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * n**3 / _best(lambda: torch.mm(a, b, out=out), device)


def model_flop_per_s(linears: dict[tuple[int, int], int], tokens: int, device: torch.device, dtype: torch.dtype) -> float:
    """Rate of the products of a forward pass over `tokens` rows: linears (out, in) -> count, each shape timed by itself, on a
    CPU with packed weights too where oneDNN takes them: the faster of the two."""
    flops = seconds = 0.0
    for (out, inp), count in linears.items():
        copies = -(-_sizes(device)["cache_bytes"] // (out * inp * dtype.itemsize))
        weights = torch.zeros(min(copies, count), out, inp, device=device, dtype=dtype).normal_()
        x = torch.randn(tokens, inp, device=device).to(dtype)
        ways: list[Callable[[], object]] = [lambda x=x, weights=weights: [x @ w.t() for w in weights]]  # type: ignore[misc]
        if onednn.packable(weights[0]):
            packed = [onednn.pack(w) for w in weights]
            ways.append(lambda x=x, packed=packed: [onednn.product(x, w) for w in packed])  # type: ignore[misc]
        each = min(_best(way, device) for way in ways) / len(weights)
        flops += 2.0 * out * inp * tokens * count
        seconds += each * count
    return flops / seconds


def cached(folder: Path, key: dict[str, Any], measure: Callable[[], float], seen: float = 0.0) -> dict[str, Any]:
    """{"rate", "measured_on", "measured_at"}: what `measure` returns, kept per key (machine, software, sizes).

    seen    a rate that a step has reached: a ceiling below it was measured on a busy machine, and is measured again
    """
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=8).hexdigest()
    path = folder / f"{digest}.json"
    try:
        held = json.loads(path.read_text())
        known = float(held["rate"])
    except (OSError, ValueError, LookupError, TypeError):  # not there, or cut off
        known = 0.0
    if known > seen:
        return held
    rate = measure()
    if rate <= known:
        return held
    found = {"rate": rate, "measured_on": key, "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    with suppress(OSError):  # in a cache that this user may not write to, it is measured each time
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(found))
        partial.replace(path)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """What a ceiling depends on besides the sizes."""
    if device.type == "cuda":
        name, threads = torch.cuda.get_device_name(device), None
    else:
        from cpuinfo import get_cpu_info

        name, threads = get_cpu_info().get("brand_raw", "cpu"), torch.get_num_threads()
    return {"device": name, "threads": threads, "torch": torch.__version__}


def _sizes(device: torch.device) -> dict[str, int]:
    return GPU if device.type == "cuda" else CPU


def _best(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest call within the time given; calls come in groups, so that launching them costs nothing."""
    function()
    synchronize(device)
    group = 10 if device.type == "cuda" else 1
    fastest, until = float("inf"), time.perf_counter() + SECONDS
    while fastest == float("inf") or time.perf_counter() < until:
        started = time.perf_counter()
        for _ in range(group):
            function()
        synchronize(device)
        fastest = min(fastest, (time.perf_counter() - started) / group)
    return fastest
