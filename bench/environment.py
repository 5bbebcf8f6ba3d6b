"""Where a run happened and from which source. Imports neither torch nor vllm, so a dead session still has its environment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bench.nvml import ask, open_nvml

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "vllm", "transformers", "triton", "numpy")


def environment(device: str) -> dict[str, Any]:
    """Facts about the machine: what a comparison needs to be the same, and what explains a difference.

    device is the GPU's name or the CPU's; gpu holds driver, memory in bytes and clock limits in MHz, and is None on a CPU.
    """
    gpu = gpu_facts() if device == "cuda" else None
    return {
        "device": gpu["name"] if gpu else cpu_model(),
        "gpu": gpu,
        "driver": gpu["driver"] if gpu else None,
        "cpu": cpu_model(),
        "threads": threads(),
        "memory_bytes": host_memory(),
        "os": platform.platform(),
        "python": platform.python_version(),
    } | {name: version(name) for name in PACKAGES}


def source() -> dict[str, Any]:
    """Commit, whether the tree differs from it, and the command line; commit is None outside a git checkout."""
    commit = git("rev-parse", "HEAD")
    dirty = bool(git("status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"commit": commit, "dirty": dirty, "argv": sys.argv[1:]}


def threads() -> int:
    """Threads every executor computes with: OMP_NUM_THREADS if set, else the physical cores this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return max(1, min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0))))


def host_memory() -> int:
    """Bytes of main memory: the machine's, or what a container is allowed of it."""
    found = [psutil.virtual_memory().total]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text().strip()
        except OSError:
            continue
        found += [int(text)] if text.isdigit() else []
    return min(found)


def version(package: str) -> str | None:
    """Installed version, or that of a copy on PYTHONPATH; None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def gpu_facts() -> dict[str, Any] | None:
    """Name, driver, memory and clock limits of the GPU in use through NVML; None where there is none."""
    with open_nvml() as found:
        if found is None:
            return None
        nvml, handle = found
        return {
            "name": nvml.nvmlDeviceGetName(handle),
            "driver": nvml.nvmlSystemGetDriverVersion(),
            "memory_bytes": nvml.nvmlDeviceGetMemoryInfo(handle).total,
            "count": nvml.nvmlDeviceGetCount(),
            "max_sm_clock_mhz": ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
            "max_memory_clock_mhz": ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM),
        }


def gpu_clocks() -> dict[str, int | None] | None:
    """SM and memory clock in MHz at this moment; None without a GPU."""
    with open_nvml() as found:
        if found is None:
            return None
        nvml, handle = found
        return {
            "sm_mhz": ask(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": ask(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
        }


def cuda_available() -> bool:
    """Whether torch can compute on a GPU. Asks NVML first, so that a machine without one does not wait for torch."""
    with open_nvml() as found:
        if found is None:
            return False
    import torch

    return torch.cuda.is_available()


def git(*args: str, root: Path = ROOT, timeout_s: float | None = 20) -> str | None:
    """What git says of a checkout, by default the one this suite runs from; None where it says nothing."""
    try:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
