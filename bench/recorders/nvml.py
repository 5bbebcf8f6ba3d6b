"""The GPU's own counters through NVML: energy, clocks, temperature, throttle reasons, memory of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

THROTTLE = "nvmlClocksThrottleReason"
HARMLESS = ("None", "GpuIdle", "All")


@contextmanager
def open_nvml(device: torch.device) -> Iterator[tuple[Any, Any]]:
    """(the pynvml module, handle of this device). Raises pynvml.NVMLError without a driver."""
    import pynvml
    import torch

    pynvml.nvmlInit()
    try:
        uuid = torch.cuda.get_device_properties(device).uuid
        yield pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    finally:
        pynvml.nvmlShutdown()


def missing(device: str) -> str | None:
    """Why NVML cannot be asked about the device, or None."""
    if device != "cuda":
        return "NVML reports on NVIDIA GPUs only: use --device cuda on a machine with one"
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML does not answer ({error}): install the NVIDIA driver, or mount libnvidia-ml into the container"
    pynvml.nvmlShutdown()
    return None


def conditions(nvml: Any, handle: Any) -> dict[str, Any]:
    """Clocks in MHz, temperature in degrees Celsius and the reasons that hold the clocks down, at this moment."""
    reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    named = {name[len(THROTTLE) :]: getattr(nvml, name) for name in dir(nvml) if name.startswith(THROTTLE)}
    return {
        "sm_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "temperature_c": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "throttle": sorted(name for name, bit in named.items() if name not in HARMLESS and reasons & bit),
    }


def process_bytes(nvml: Any, handle: Any) -> int | None:
    """GPU memory of this process as the driver counts it: context and graph pools included. None if the driver hides it."""
    ours = [p for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == os.getpid()]
    return ours[0].usedGpuMemory if ours else None
