"""One vLLM engine for the tests of several workloads: starting it takes 15 s, setting its worker up anew takes none."""

from __future__ import annotations

from bench.api import Snapshot
from bench.config import RunSpec
from bench.data import ModelSource, TaskData
from bench.executors.vllm.executor import VllmExecutor
from workloads.models.adapter import SCOPE, Adapter, reached


class Served:
    """An engine, and the weights it was loaded with. whole: a spec whose scope is every parameter."""

    def __init__(self, source: ModelSource, spec: RunSpec, whole: RunSpec, task: TaskData) -> None:
        self.source, self.whole, self.executor = source, whole, VllmExecutor()
        self.executor.load(spec, source, task)
        self._set_up(whole)
        self.start: Snapshot = self.executor.snapshot()

    def by(self, spec: RunSpec) -> VllmExecutor:
        """The executor as if it had been loaded with another workload or scope."""
        self._set_up(self.whole)
        self.executor.restore(self.start)
        self._set_up(spec)
        return self.executor

    def _set_up(self, spec: RunSpec) -> None:
        adapters = [request.lora_int_id for request in self.executor._requests] if spec.lora != "dense" else []
        self.executor.spec = spec
        self.executor._adapter = Adapter.of(self.source, spec) if spec.scope == SCOPE else None
        self.executor.set_up(spec, reached(self.source, spec), adapters)
