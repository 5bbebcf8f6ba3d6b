"""Ray: a cluster of this machine alone, or one that is there already, and how many copies of the model it has room for."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from bench.config import RunSpec
from bench.errors import UsageError

LEAST_STORE = 128 << 20
FOLDERS = "zo-ray-"
QUIET: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}


def need(spec: RunSpec) -> dict[str, float]:
    """What one replica takes of a machine; its GPUs are all on one."""
    gpus = spec.replica_gpus if spec.device == "cuda" else 0
    ranks = spec.tensor_parallel
    return {"CPU": float(spec.replica_cpus * (1 if gpus else ranks)), "GPU": float(gpus * ranks)}


def room(machines: Iterable[Mapping[str, float]], wanted: Mapping[str, float]) -> int:
    """How many replicas fit: each is on one machine as a whole."""
    asked = {name: amount for name, amount in wanted.items() if amount}
    return sum(min(math.floor(free.get(name, 0.0) / amount) for name, amount in asked.items()) for free in machines)


def local_settings(cores: float, store_bytes: int, folder: str) -> dict[str, Any]:
    """Of a cluster of this machine, reachable from here alone; its files are in the folder."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's switch for a cluster that listens on the loopback address alone
    return QUIET | {
        "address": "local",
        "num_cpus": math.ceil(cores),
        "include_dashboard": False,
        "object_store_memory": max(LEAST_STORE, store_bytes),
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
    }


def named(wanted: Mapping[str, float]) -> str:
    """`1 CPU`, `1 CPU and 2 GPU`."""
    return " and ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)


def check_ray(spec: RunSpec) -> None:
    """UsageError where Ray is not installed."""
    if spec.replicas is not None and importlib.util.find_spec("ray") is None:
        raise UsageError(f"--replicas {spec.replicas}: Ray is not installed; pip install 'zo-bench[ray]'")


class Cluster:
    """Started or joined when it is made, left or ended by `close`. state_bytes: size of a snapshot. One that this process has
    already joined is used and left as it is."""

    def __init__(self, spec: RunSpec, state_bytes: int) -> None:
        self.spec, self._folder = spec, ""
        settings: dict[str, Any] = QUIET | {"address": spec.ray_address}
        if spec.ray_address is None:
            remove_old()
            self._folder = tempfile.mkdtemp(prefix=f"{FOLDERS}{os.getpid()}-")
            copies = 1 if spec.replicas in (None, "auto") else int(str(spec.replicas))
            cores = max(len(os.sched_getaffinity(0)), need(spec)["CPU"] * copies)
            settings = local_settings(cores, 3 * state_bytes, self._folder)  # before ray is imported
        import ray

        self._ray, self._own = ray, not ray.is_initialized()
        if not self._own:
            return
        try:
            ray.init(**settings)
        except Exception as error:  # Ray has many kinds; with an address all mean that there is nothing to join
            if spec.ray_address is None:
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UsageError(
                f"--ray-address {spec.ray_address}: cannot be joined ({reason[:200]}); start one with `ray start --head`"
            ) from None

    def room(self) -> int:
        """How many more replicas fit now."""
        from ray._private.state import available_resources_per_node

        return room(available_resources_per_node().values(), need(self.spec))

    def close(self) -> None:
        if self._own:
            self._ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def remove_old() -> None:
    """What clusters of runs that were killed have left behind: their processes ended with them, their files did not."""
    for path in Path(tempfile.gettempdir()).glob(f"{FOLDERS}[0-9]*-*"):
        owner = int(path.name.removeprefix(FOLDERS).partition("-")[0])
        if not psutil.pid_exists(owner):
            shutil.rmtree(path, ignore_errors=True)
