"""`doctor`: what this machine can run. Each line is a fact; what is missing comes with the way to mend it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from bench.commands.terminal import stderr_console
from bench.environment import cpu_model, gpu_facts, threads, version

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """ok None: only a fact. `mend` says what to do when ok is False; needed: without it the suite cannot run at all."""

    name: str
    found: str
    ok: bool | None = None
    mend: str = ""
    needed: bool = False


def doctor(results: str) -> int:
    """Print the findings; exit code 1 when the suite cannot run at all (python, torch or vllm missing)."""
    findings = list(examine(results))
    table = Table("", "what", "found", "to mend")
    for finding in findings:
        mark = {True: "ok", False: "missing", None: ""}[finding.ok]
        table.add_row(mark, finding.name, finding.found, "" if finding.ok is not False else finding.mend)
    stderr_console().print(table)
    broken = [finding.name for finding in findings if finding.ok is False and finding.needed]
    status = "failed" if broken else "passed"
    print(json.dumps({"status": status, "findings": [asdict(f) for f in findings]}, separators=(",", ":")))
    return 1 if broken else 0


def examine(results: str) -> Iterator[Finding]:
    yield Finding("python", sys.version.split()[0], sys.version_info >= (3, 11), "use Python 3.11 or newer", needed=True)
    yield Finding("cpu", f"{cpu_model()}, {threads()} threads")
    memory = psutil.virtual_memory()
    yield Finding("memory", f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free")
    yield disk(results)
    yield probe("torch", torch_version, "pip install -e .", needed=True)
    gpu = gpu_facts()
    yield Finding(
        "NVML", gpu["name"] if gpu else "no NVIDIA GPU found through NVML", gpu is not None, "on a CPU nothing; else a driver"
    )
    yield probe("CUDA", cuda, "on a CPU nothing; else a driver that fits this torch")
    yield probe("CUPTI", cupti, "on a CPU nothing; else a CUDA build of torch")
    yield Finding(
        "transformers", version("transformers") or "not installed", version("transformers") is not None, "pip install -e ."
    )
    vllm = version("vllm")
    yield Finding("vllm", vllm or "not installed", vllm == "0.26.0", "pip install vllm==0.26.0", needed=True)
    yield probe("vllm platform", vllm_platform, "pip install -e . registers the CPU platform of this suite")
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    yield Finding("C compiler", compiler or "none", compiler is not None, "Triton needs one on a GPU: apt-get install gcc")
    yield from recorders("cuda" if gpu else "cpu")
    yield from models()


def recorders(device: str) -> Iterator[Finding]:
    """What can be watched here; why not, and how to mend it, where it cannot."""
    from bench.recorders import available
    from bench.registry import RECORDERS

    for name in RECORDERS:
        why, _, mend = (available(name, device) or "").partition(": ")
        yield Finding(f"recorder {name}", why or "works here", not why, mend)


def probe(name: str, look: Callable[[], str], mend: str, *, needed: bool = False) -> Finding:
    """A look that may fail in any way the machine finds; then the failure is the finding."""
    try:
        return Finding(name, look(), True, needed=needed)
    except Exception as error:
        return Finding(name, " ".join(str(error).split())[:120] or type(error).__name__, False, mend, needed)


def disk(results: str) -> Finding:
    folder = next(p for p in (Path(results).absolute(), *Path(results).absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free / GIB
    return Finding("disk", f"{free:.1f} GiB free at {folder}", free >= 1, "free a GiB, or give --results elsewhere")


def torch_version() -> str:
    return str(importlib.import_module("torch").__version__)


def cuda() -> str:
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU")
    return f"CUDA {torch.version.cuda}, driver {(gpu_facts() or {}).get('driver')}, {torch.cuda.get_device_name()}"


def cupti() -> str:
    from torch.profiler import ProfilerActivity, supported_activities

    if ProfilerActivity.CUDA not in supported_activities():
        raise RuntimeError("torch cannot trace GPU kernels here")
    return "torch traces GPU kernels"


def vllm_platform() -> str:
    from bench.executors.vllm.variables import prepare_environment

    prepare_environment("cpu")
    platform: Any = importlib.import_module("vllm.platforms").current_platform
    if not platform.device_type:
        raise RuntimeError("vllm finds no platform it can run on")
    runner = "V2" if importlib.import_module("vllm.envs").VLLM_USE_V2_MODEL_RUNNER else "V1"
    return f"{type(platform).__name__} ({platform.device_type}), {runner} model runner"


def models() -> Iterator[Finding]:
    """Every model of the table: where its weights are, if they are on this machine. Nothing is downloaded."""
    from bench.errors import UsageError
    from workloads.models.table import MODELS, resolve_model, tiny_is_built

    for name, info in MODELS.items():
        if not info.hub_id:
            yield Finding(f"model {name}", "built" if tiny_is_built() else "not built yet; the first run does it", True)
            continue
        try:
            found = resolve_model(name, "pretrained", download=False).path
        except UsageError:
            yield Finding(f"model {name}", f"{info.hub_id} is not cached", False, "--weights random runs without them")
        else:
            yield Finding(f"model {name}", found, True)
