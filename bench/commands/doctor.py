"""`doctor`: what this machine can run. Each line is a fact; what is missing comes with the way to mend it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from bench.environment import cpu_model, gpu_facts, threads, version
from bench.shadowing import ROOT, hidden_by
from bench.terminal import stderr_console

GIB = 2**30
INSTALL = "Run pip install -e . in the checkout."
NOT_ON_A_CPU = "Not needed on a CPU."
SPEED = "Download it, or measure speed alone with --weights random."


@dataclass(frozen=True)
class Finding:
    """ok None: only a fact. When ok is False, `mend` says what to do, and `lacks` in a word what is wrong; needed: without it the
    suite cannot run at all."""

    name: str
    found: str
    ok: bool | None = None
    mend: str = ""
    needed: bool = False
    lacks: str = "missing"


def doctor(results: str) -> int:
    """Print the findings; exit code 1 when the suite cannot run at all (python, torch or vllm missing)."""
    findings = list(examine(results))
    table = Table("", "what", "found", "to mend")
    for column in table.columns:
        column.overflow = "fold"
    for finding in findings:
        mark = {True: "ok", False: finding.lacks, None: ""}[finding.ok]
        table.add_row(mark, finding.name, finding.found, "" if finding.ok is not False else finding.mend)
    stderr_console().print(table)
    broken = [finding.name for finding in findings if finding.ok is False and finding.needed]
    status = "failed" if broken else "passed"
    print(json.dumps({"status": status, "findings": [asdict(f) for f in findings]}, separators=(",", ":")))
    return 1 if broken else 0


def examine(results: str) -> Iterator[Finding]:
    yield Finding("python", sys.version.split()[0], sys.version_info >= (3, 11), "Use Python 3.11 or newer.", needed=True)
    yield Finding("cpu", f"{cpu_model()}, {threads()} threads")
    memory = psutil.virtual_memory()
    yield Finding("memory", f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free")
    yield from surroundings(results)
    yield probe("torch", torch_version, INSTALL, needed=True)
    gpu = gpu_facts()
    yield Finding(
        "NVML",
        gpu["name"] if gpu else "no NVIDIA GPU found through NVML",
        gpu is not None,
        f"{NOT_ON_A_CPU} On a GPU machine, install the NVIDIA driver.",
    )
    yield probe("CUDA", cuda, f"{NOT_ON_A_CPU} On a GPU machine, install a driver that fits this torch.")
    yield probe("CUPTI", cupti, f"{NOT_ON_A_CPU} On a GPU machine, install a CUDA build of torch.")
    yield Finding(
        "transformers",
        version("transformers") or "not installed",
        version("transformers") is not None,
        INSTALL,
    )
    from bench.executors.vllm.compat import DEFAULT, known

    vllm, mend = version("vllm"), f"Run pip install vllm=={DEFAULT}."
    yield Finding("vllm", vllm or "not installed", vllm is not None, mend, needed=True)
    if vllm is not None:
        yield probe("vllm version", lambda: known(vllm), f"{mend} Another one may work.", lacks="untried")
    yield probe("vllm platform", vllm_platform, f"{INSTALL} It registers the CPU platform of this suite.")
    yield Finding("ray", version("ray") or "not installed", version("ray") is not None, "For --replicas: pip install ray.")
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    yield Finding(
        "C compiler",
        compiler or "none",
        compiler is not None,
        f"{NOT_ON_A_CPU} Triton needs one on a GPU: run apt-get install gcc.",
    )
    yield from recorders("cuda" if gpu else "cpu")
    yield from models()


def recorders(device: str) -> Iterator[Finding]:
    """What can be watched here; why not, and how to mend it, where it cannot."""
    from bench.recorders import available
    from bench.registry import RECORDERS

    for name in RECORDERS:
        why, _, mend = (available(name, device) or "").partition(": ")
        yield Finding(f"recorder {name}", why or "works here", not why, mend)


def probe(name: str, look: Callable[[], str], mend: str, *, needed: bool = False, lacks: str = "missing") -> Finding:
    """A look that may fail in any way the machine finds; then the failure is the finding."""
    try:
        return Finding(name, look(), True, needed=needed)
    except Exception as error:
        return Finding(name, " ".join(str(error).split())[:120] or type(error).__name__, False, mend, needed, lacks)


def surroundings(results: str) -> Iterator[Finding]:
    """Folders, variables and the working directory: what a run would refuse or trip over."""
    from workloads.models.cache import VARIABLE, cache_dir
    from workloads.models.hub import check_endpoint

    yield folder("results", lambda: Path(results).absolute(), "Give a folder that can be written with --results.")
    yield folder("cache", cache_dir, f"Set {VARIABLE} to a folder that can be written.")
    yield probe("hub address", check_endpoint, "Write HF_ENDPOINT with https://, or unset it.")
    yield probe("vllm variables", variables, "Unset it.")
    hidden = [] if Path.cwd() == ROOT else hidden_by(os.getcwd())
    mend = "Start the command zo-bench, which does not look there, or rename them."
    yield Finding("working directory", ", ".join(hidden) or "hides no module", not hidden, mend)


def variables() -> str:
    from bench.executors.vllm.variables import check_variables

    check_variables()
    return "none is in the way"


def folder(name: str, where: Callable[[], Path], mend: str) -> Finding:
    """Whether a folder can be written, or made, and how much room there is."""

    def look() -> str:
        wanted = where()
        there = next(path for path in (wanted, *wanted.parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(f"{wanted}: {there} is not a folder")
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free / GIB
        if free < 1:
            raise OSError(f"{wanted}: only {free:.2f} GiB free")
        return f"{wanted}, {free:.1f} GiB free"

    return probe(name, look, mend)


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


def tiny() -> str:
    from workloads.models.table import tiny_is_built

    return "built" if tiny_is_built() else "not built yet; the first run does it"


def models() -> Iterator[Finding]:
    """Every model of the table: where its weights are, if they are on this machine. Nothing is downloaded."""
    from bench.errors import UsageError
    from workloads.models.published import MODELS
    from workloads.models.table import resolve_model

    for name, info in MODELS.items():
        if not info.hub_id and info.config:
            yield Finding(f"model {name}", "random weights, to measure speed")
        elif not info.hub_id:
            yield probe(f"model {name}", tiny, "Mend the cache, above.")
            continue
        try:
            found = resolve_model(name, "pretrained", download=False).path
        except UsageError:
            yield Finding(
                f"model {name}",
                f"{info.hub_id} is not cached",
                False,
                "Download it, or measure speed alone with --weights random.",
            )
        else:
            yield Finding(f"model {name}", found, True)
