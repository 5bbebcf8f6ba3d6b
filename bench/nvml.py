"""The GPU's own counters through NVML: energy, clocks, temperature, throttle reasons, memory of this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

THROTTLE = "nvmlClocksThrottleReason"
HARMLESS = ("None", "GpuIdle", "All")


@contextmanager
def open_nvml(device: torch.device | None = None) -> Iterator[tuple[Any, Any] | None]:
    """(the pynvml module, handle) of torch's device, or of the first visible GPU without one; None where there is no GPU."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no module, no driver or no library: all mean that there is no NVIDIA GPU to talk to
        yield None
        return
    try:
        yield _handle(pynvml, device)
    finally:
        pynvml.nvmlShutdown()


@dataclass
class Utilization:
    """mean: share of the time in which a kernel ran, as the driver samples it; None where there is no GPU."""

    mean: float | None = None


@contextmanager
def utilization(every_s: float = 0.2) -> Iterator[Utilization]:
    """Looks at the first visible GPU while this is open; whole when it is closed."""
    found, over, seen = Utilization(), threading.Event(), list[float]()

    def watch() -> None:
        with open_nvml() as opened:
            while opened is not None and not over.wait(every_s):
                rates = ask(opened[0], opened[0].nvmlDeviceGetUtilizationRates, opened[1])
                if rates is not None:
                    seen.append(rates.gpu / 100)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
        found.mean = sum(seen) / len(seen) if seen else None


def missing(device: str, *, energy: bool = False) -> str | None:
    """Why NVML (or its energy counter) cannot be asked about the device, or None."""
    if device != "cuda":
        return "NVML reports on NVIDIA GPUs only: use --device cuda on a machine with one"
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML does not answer ({error}): install the NVIDIA driver, or mount libnvidia-ml into the container"
    try:
        if energy:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError as error:
        return f"this GPU does not show its energy counter ({error}): Volta or newer has one, outside MIG slices"
    finally:
        pynvml.nvmlShutdown()
    return None


def conditions(nvml: Any, handle: Any) -> dict[str, Any]:
    """Clocks in MHz, temperature in degrees Celsius and the reasons that hold the clocks down, at this moment; None where
    the driver does not say."""
    reasons = ask(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    named = {name[len(THROTTLE) :]: getattr(nvml, name) for name in dir(nvml) if name.startswith(THROTTLE)}
    held = sorted(name for name, bit in named.items() if name not in HARMLESS and (reasons or 0) & bit)
    return {
        "sm_mhz": ask(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
        "memory_mhz": ask(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
        "temperature_c": ask(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        "throttle": None if reasons is None else held,
    }


def process_bytes(nvml: Any, handle: Any) -> int | None:
    """GPU memory of this process as the driver counts it: context and graph pools included. None if the driver hides it."""
    processes = ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return next((p.usedGpuMemory for p in processes if p.pid == os.getpid()), None)


def ask(nvml: Any, query: Any, *args: Any) -> Any:
    """What the driver answers, or None where it does not."""
    try:
        return query(*args)
    except nvml.NVMLError:
        return None


def _handle(nvml: Any, device: torch.device | None) -> tuple[Any, Any] | None:
    if device is not None:
        import torch

        return nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        if first.isdigit():
            return nvml, nvml.nvmlDeviceGetHandleByIndex(int(first))
        return (nvml, nvml.nvmlDeviceGetHandleByUUID(first)) if first else None
    except nvml.NVMLError:
        return None
