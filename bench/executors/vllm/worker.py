"""The worker extension: named methods vLLM adds to its worker class, reached with `collective_rpc("zo_...")`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bench.api import Probe, Snapshot, Update, Workload
from bench.config import RunSpec
from bench.data import Batch, Objective
from bench.executors.vllm import loader  # noqa: F401 - every rank's process has to know the loader of random weights
from bench.executors.vllm.packing import Reach
from bench.executors.vllm.resident import Resident
from bench.executors.vllm.sizes import Counts
from bench.executors.vllm.tracing import Tracing
from workloads.directions import Layout
from workloads.parameters.checksum import Sums
from workloads.parameters.shards import Shards


class ZoWorker:
    """Mixed into vLLM's Worker; `model_runner` is the worker's. All state is in one object, `zo`."""

    model_runner: Any
    zo: Resident

    def zo_setup(
        self, spec: RunSpec, layout: Layout, adapters: list[int], reach: dict[str, Reach], objective: Objective
    ) -> Shards | None:
        """The parts of the scoped parameters that this rank holds; None where it holds them whole."""
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner

        if not isinstance(self.model_runner, GPUModelRunner):
            kind = type(self.model_runner)
            raise RuntimeError(
                f"vLLM chose the model runner {kind.__module__}.{kind.__name__}; this executor needs its first one: "
                "set VLLM_USE_V2_MODEL_RUNNER=0"
            )
        self.zo = Resident(self.model_runner, spec, layout, adapters, reach, objective)
        return self.zo.shards

    def zo_score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        return self.zo.score(batch, probes)

    def zo_step(self, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
        return self.zo.step(workload, step, batch)

    def zo_prepare(self, probes: Sequence[Probe]) -> None:
        self.zo.prepare(probes)

    def zo_write_dense(self, probe: Probe | None) -> None:
        self.zo.write_dense(probe)

    def zo_prepare_current(self) -> bool:
        return self.zo.prepare_current()

    def zo_apply(self, update: Update) -> None:
        self.zo.apply(update)

    def zo_replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        self.zo.replay(workload, step, losses)

    def zo_snapshot(self) -> Snapshot:
        return self.zo.moved.snapshot()

    def zo_restore(self, snapshot: Snapshot) -> None:
        self.zo.moved.restore(snapshot)

    def zo_checksum(self) -> str:
        return self.zo.moved.checksum()

    def zo_sums(self) -> Sums:
        return self.zo.moved.sums()

    def zo_evaluate(self, examples: Batch, chunk: int) -> torch.Tensor:
        return self.zo.evaluate(examples, chunk)

    def zo_parameters(self) -> dict[str, torch.Tensor]:
        return self.zo.moved.values()

    def zo_use(self, spec: RunSpec) -> None:
        self.zo.use(spec)

    def zo_replays(self, wanted: bool) -> None:
        self.zo.forward.replays = wanted

    def zo_facts(self) -> dict[str, Any]:
        return self.zo.facts()

    def zo_counts(self) -> Counts:
        return Counts(self.zo.forward.shares, self.zo.forward.cuts)

    def zo_written(self, queries: int) -> int:
        return self.zo.written(queries)

    def zo_start_tracing(self, names: list[str]) -> None:
        self.zo.tracing = Tracing(self.zo.device, names)

    def zo_stop_tracing(self) -> str:
        assert self.zo.tracing is not None
        tracing, self.zo.tracing = self.zo.tracing, None
        return tracing.stop()

    def zo_memory_parts(self) -> dict[str, int]:
        return self.zo.memory_parts()
