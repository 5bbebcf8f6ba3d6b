"""vLLM's own switches: set here, before vllm is imported, and nowhere else. What is set against them is refused by name."""

from __future__ import annotations

import os

from bench.errors import UsageError

NEEDED = {
    "VLLM_USE_V2_MODEL_RUNNER": "the vllm executor drives vLLM's first model runner, on the CPU and on a GPU",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "the vllm executor runs engine and worker in one process: one profiler sees every kernel",
}
"""Switches that have to be 0, and why."""
DEFAULTS = {
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # a row may fill all the model's positions; vLLM counts a token to come as well
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
PLUGIN = "zo_bench_cpu"


def check_variables() -> None:
    """UsageError for a switch that the executor cannot run with."""
    for name, why in NEEDED.items():
        if (value := os.environ.get(name) or "0") != "0":
            raise UsageError(f"{name}={value}: {why}; unset it")


def prepare_environment(device: str) -> None:
    """Set vLLM's switches unless the user has; call before the first import of vllm. UsageError as in `check_variables`."""
    check_variables()
    os.environ |= dict.fromkeys(NEEDED, "0")
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if device == "cpu":
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # else every engine of a machine takes the same cores
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # else the first request compiles a helper for 20 s
        if "VLLM_PLUGINS" in os.environ:  # a list of all that may be loaded: without ours vLLM finds no platform here
            chosen = filter(None, os.environ["VLLM_PLUGINS"].split(","))
            os.environ["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*chosen, PLUGIN]))
