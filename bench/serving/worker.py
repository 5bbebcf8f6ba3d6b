"""The server's worker extension: named methods that vLLM adds to its worker class, reached with `collective_rpc("zs_...")`."""

from __future__ import annotations

import time
from typing import Any

from vllm.platforms import current_platform

from bench.config import RunSpec
from bench.data import Objective
from bench.executors.vllm import loader  # noqa: F401 - importing it registers the loader of random weights
from bench.executors.vllm.rows import make_rows_alike
from bench.executors.vllm.views import share_slots
from bench.serving import process
from bench.serving.admission import Policy
from bench.serving.course import Adapter
from bench.serving.passes import Passes
from bench.serving.scheduler import UsersFirst
from bench.serving.state import Trained
from bench.serving.training import Training

if current_platform.is_cuda():
    cuda: Any = type(current_platform)
    cuda.get_punica_wrapper = classmethod(lambda _: "bench.executors.vllm.lora_cuda.TritonLora")


class ServingWorker:
    """Mixed into vLLM's worker; `model_runner` is the worker's. zs_training: where training is not beside the engine."""

    model_runner: Any
    zs_training: Training

    def zs_setup(
        self,
        spec: dict[str, Any],
        layout: dict[str, list[int]],
        probes: list[Adapter],
        ring: list[int],
        objective: Objective,
        single: bool,
        beside: str | None,
    ) -> bool:
        """objective, single: of the task, and whether its answers are single tokens; beside: where training listens if it can be
        in a process of its own, which is what is answered."""
        runner, scheduler = self.model_runner, self._scheduler()
        on_cpu = runner.device.type == "cpu"
        if on_cpu:
            make_rows_alike(runner.model)
        shapes, numbers = {name: tuple(shape) for name, shape in layout.items()}, [number for _, number, _ in probes]

        def state() -> Trained:
            return Trained(runner, RunSpec.from_json(spec), shapes, numbers, ring)

        def training(count: process.Count) -> Training | None:
            trained = state()
            passes = Passes(runner, objective, trained.slot_of, count)
            return Training(trained, passes, objective, probes) if passes.taken else None

        if on_cpu and beside is not None:
            share_slots(runner.lora_manager._adapter_manager)
            scheduler.process = process.start(training, beside, scheduler.max_num_scheduled_tokens)
        if scheduler.process is None:
            scheduler.questions.single = single
            self.zs_training = Training(state(), scheduler.questions, objective, probes)
            scheduler.course = self.zs_training.course
        return scheduler.process is not None

    def zs_call(self, name: str, *args: Any) -> Any:
        """A method of training within the engine. Users whose requests came meanwhile have waited for it."""
        begin = time.time()
        try:
            return getattr(self.zs_training, name)(*args)
        finally:
            self._scheduler().took(begin, time.time())

    def zs_policy(self, name: str, tokens: int, slo: str, cache_probes: bool = False) -> None:
        scheduler = self._scheduler()
        scheduler.use(Policy.of(name, tokens, slo, scheduler.max_num_scheduled_tokens))
        scheduler.cache_probes = cache_probes

    def zs_facts(self) -> dict[str, Any]:
        caches = {cache.data_ptr(): cache.numel() * cache.element_size() for cache in self.model_runner.kv_caches}
        return {"admission": self._scheduler().facts(), "memory_bytes": {"kv_pool": sum(caches.values())}}

    @staticmethod
    def _scheduler() -> UsersFirst:
        """Worker and scheduler share a process: the server has one worker."""
        assert UsersFirst.current is not None
        return UsersFirst.current
