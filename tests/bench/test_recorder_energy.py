"""Energy through a scripted NVML: the counter's arithmetic and the names of the throttle reasons, without a GPU."""

import os
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from bench import nvml
from bench.recorders import energy


class ScriptedNvml:
    """300 J are used between two readings, at 1980 and then 1755 MHz, the second time held down by power and heat.
    The temperature is hidden, as in some containers."""

    NVMLError = type("NVMLError", (Exception,), {})
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    nvmlClocksThrottleReasonNone, nvmlClocksThrottleReasonGpuIdle = 0, 1
    nvmlClocksThrottleReasonSwPowerCap, nvmlClocksThrottleReasonHwSlowdown = 4, 8

    def __init__(self):
        self.energy, self.clocks, self.reasons = iter((5_000_000, 5_300_000)), iter((1980, 1755)), iter((1, 1 | 4 | 8))

    def nvmlDeviceGetTotalEnergyConsumption(self, _):
        return next(self.energy)

    def nvmlDeviceGetClockInfo(self, _, clock):
        return next(self.clocks) if clock == self.NVML_CLOCK_SM else 2619

    def nvmlDeviceGetTemperature(self, _, sensor):
        raise self.NVMLError

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _):
        return next(self.reasons)


@pytest.fixture
def recorder(monkeypatch):
    @contextmanager
    def scripted(device):
        yield ScriptedNvml(), "handle"

    monkeypatch.setattr(energy, "open_nvml", scripted)
    return energy.Energy(SimpleNamespace(device=torch.device("cuda"), steps=3, timed_step_s=0.1), None)


def test_joules_per_step_from_the_counter(recorder):
    with recorder:
        pass
    found = recorder.collect()
    assert found["steps"] == 20  # two seconds of steps of 0.1 s
    assert found["joules_per_step"] == 300 / 20
    assert found["average_watts"] == pytest.approx(300 / found["seconds"])


def test_conditions_before_and_after(recorder):
    with recorder:
        pass
    found = recorder.collect()
    assert found["before"] == {"sm_mhz": 1980, "memory_mhz": 2619, "temperature_c": None, "throttle": []}
    assert found["after"]["sm_mhz"] == 1755
    assert found["after"]["throttle"] == ["HwSlowdown", "SwPowerCap"]


def test_memory_of_this_process_among_others():
    ours, theirs = SimpleNamespace(pid=os.getpid(), usedGpuMemory=7), SimpleNamespace(pid=-1, usedGpuMemory=9)
    scripted = SimpleNamespace(nvmlDeviceGetComputeRunningProcesses=lambda _: [theirs, ours])
    assert nvml.process_bytes(scripted, "handle") == 7
    scripted.nvmlDeviceGetComputeRunningProcesses = lambda _: [theirs]
    assert nvml.process_bytes(scripted, "handle") is None


def test_every_name_asked_of_nvml_exists_in_pynvml():
    import pynvml

    for name in vars(ScriptedNvml):
        assert name.startswith("_") or hasattr(pynvml, name), name
    assert nvml.missing("cpu")
