"""The server's worker extension: named methods that vLLM adds to its worker class, reached with `collective_rpc("zs_...")`.

The engine is a process of its own, so only numbers and names cross; directions are drawn here, from their seeds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from vllm.platforms import current_platform

from bench.api import Direction, Probe
from bench.config import RunSpec
from bench.data import Objective
from bench.executors.vllm import loader  # noqa: F401 - importing it registers the loader of random weights
from bench.executors.vllm.rows import make_rows_alike
from bench.executors.vllm.views import lora_slices
from bench.journal.entries import SnapshotEntry
from bench.journal.snapshots import Snapshots
from bench.registry import make_workload, workload_class
from bench.serving.admission import Policy
from bench.serving.course import Adapter, Course, Scorer, Scores, received
from bench.serving.passes import Passes
from bench.serving.scheduler import UsersFirst
from bench.serving.slots import StackedSlots
from workloads.directions import Drawn, Layout, draw
from workloads.parameters.stacked import StackedState

if current_platform.is_cuda():
    cuda: Any = type(current_platform)
    cuda.get_punica_wrapper = classmethod(lambda _: "bench.executors.vllm.lora_cuda.TritonLora")


class Trained:
    """The state of training, and the slots it is written to. probes, ring: vLLM's ids of their adapters."""

    def __init__(self, runner: Any, spec: RunSpec, layout: Layout, probes: list[int], ring: list[int]) -> None:
        manager = runner.lora_manager._adapter_manager
        self.layout, self.device, self.dtype = layout, runner.device, runner.model_config.dtype
        self.workload, self.probes = make_workload(spec), probes
        self.shares_v = workload_class(spec.workload).kind == "lowrank"
        self.slot_of = {adapter: manager.lora_index_to_id.index(adapter) for adapter in (*probes, *ring)}
        self.slots = StackedSlots(lora_slices(manager, layout), layout, spec.rank, accumulates=self.shares_v)
        update = 0 if self.shares_v else len({probe.direction for probe in self.workload.plan(0)}) * spec.rank
        self.room = self.slots.room - update  # a state is published with its last update, whose columns are its own
        self.stack = StackedState(layout, self.device, self.dtype, self.room)
        self.saving: Future[SnapshotEntry] | None = None
        self.pool = ThreadPoolExecutor(1)
        self._drawn: dict[Direction, Drawn] = {}

    def draw(self, direction: Direction) -> Drawn:
        if direction not in self._drawn:
            self._drawn[direction] = draw(direction, self.layout, self.device, self.dtype)
        return self._drawn[direction]

    def apply(self, step: int, losses: list[float]) -> None:
        for direction, coefficient in self.workload.update(step, torch.tensor(losses, device=self.device)).terms:
            self.stack.state.add(self.draw(direction), coefficient)
        self._drawn.clear()

    def prepare(self, step: int) -> int:
        """Write the probes of a step; where the columns do not hold the past, how many matrices have to be compressed first."""
        plan, current = self.workload.plan(step), self.current(step)
        if self.stack.width(current) > self.room:
            return len(self.stack.names)
        self._hold_past(self.stack, current)
        self.write_probes(plan)
        return 0

    def compress(self, step: int, matrices: int) -> int:
        """Of the past of a step's probes; how many matrices are left."""
        return self.stack.compress(self.current(step), matrices)

    def current(self, step: int) -> Any:
        """The epoch of V that is no past to a step; None where every direction is drawn anew."""
        return self.workload.plan(step)[0].direction.epoch if self.shares_v else None

    def write_probes(self, probes: Sequence[Probe]) -> None:
        for adapter, probe in zip(self.probes, probes, strict=False):
            self._write(self.stack, adapter, probe)

    def publish(self, stack: StackedState, adapter: int) -> None:
        """A state without a probe, into a slot that no running request reads."""
        pending = stack.state.pending
        if not pending and not stack.kept:
            self.slots.clear(self.slot_of[adapter])
            return
        newest = max((held.last for held in pending.values()), key=lambda last: last.step, default=None)
        last = newest or self.workload.plan(0)[0].direction
        self._hold_past(stack, last.epoch if self.shares_v and newest else None)
        self._write(stack, adapter, Probe(last, 0.0))

    def _hold_past(self, stack: StackedState, current: Any) -> None:
        key = (stack.token, stack.compressions, tuple(stack.past(current)))
        if self.slots.key != key:
            self.slots.set_past(key, stack.factors(current) if stack.width(current) else {})

    def _write(self, stack: StackedState, adapter: int, probe: Probe) -> None:
        held = stack.state.factor(probe.direction.epoch) if self.shares_v else None
        self.slots.write(self.slot_of[adapter], self.draw(probe.direction), probe.shift, held)


class ServingWorker:
    """Mixed into vLLM's worker; `model_runner` is the worker's. Its state is in `zs`, and what steps do in `zs_course`."""

    model_runner: Any
    zs: Trained
    zs_course: Course
    zs_scorer: Scorer

    def zs_setup(
        self,
        spec: dict,
        layout: dict,
        probes: list[Adapter],
        ring: list[int],
        objective: Objective,
        single: bool,
        passes: bool,
    ) -> dict[str, Any]:
        """objective, single: of the task, and whether its answers are single tokens; passes: that probes be no requests."""
        shapes, scheduler = {name: tuple(shape) for name, shape in layout.items()}, self._scheduler()
        self.zs = Trained(self.model_runner, RunSpec.from_json(spec), shapes, [number for _, number, _ in probes], ring)
        if self.model_runner.device.type == "cpu":
            make_rows_alike(self.model_runner.model)
        scheduler.questions.single = single
        if passes and self.model_runner.device.type == "cpu":
            made = Passes(self.model_runner, objective, self.zs.slot_of, scheduler.called)
            scheduler.passes = made if made.taken else None
        self.zs_scorer = scheduler.passes or scheduler.questions
        self.zs_course = scheduler.course = Course(self.zs, self.zs_scorer, objective, probes)
        return {"room": self.zs.room, "slot_bytes": self.zs.slots.nbytes(), "passes": scheduler.passes is not None}

    def zs_train(self, first: int, batches: list) -> None:
        """Take the steps of these minibatches, as `sent` has them, when users leave room."""
        self.zs_course.add(first, map(received, batches))

    def zs_trained(self) -> dict[str, Any]:
        """The steps that were done since it was last asked, and what went wrong."""
        return {
            "done": [(one.step, one.end, one.seconds, one.losses) for one in self.zs_course.take()],
            "error": self.zs_course.error,
        }

    def zs_hold(self) -> int:
        """Begin no further step; how many are still to be told of."""
        return self.zs_course.hold()

    def zs_score(self, examples: list, adapters: list[Adapter]) -> None:
        """Score examples, as `sent` has them, under the states of these adapters, when users leave room."""
        with self._busy():
            self.zs_scorer.ask(received(examples), adapters)

    def zs_answers(self) -> Scores | None:
        """What was last asked for, once all of it is known."""
        return self.zs_scorer.answers()

    @torch.inference_mode()
    def zs_replay(self, first: int, losses: list[list[float]]) -> None:
        """Do again what steps did to the state, without scoring, compressions included."""
        for step, found in enumerate(losses, start=first):
            while self.zs.stack.width(self.zs.current(step)) > self.zs.room:
                self.zs.compress(step, len(self.zs.stack.names))
            self.zs.apply(step, found)

    @torch.inference_mode()
    def zs_publish(self, adapter: int) -> None:
        """The state after the last step that is done, into the slot of this adapter."""
        with self._busy():
            self.zs_course.settle()
            self.zs.publish(self.zs.stack, adapter)

    def zs_clear(self, adapter: int) -> None:
        self.zs.slots.clear(self.zs.slot_of[adapter])

    @torch.inference_mode()
    def zs_load(self, adapter: int, journal: str, entry: dict) -> None:
        """A saved state into a slot; training keeps its own."""
        old = self._read(journal, entry)
        self.zs.publish(old, adapter)

    @torch.inference_mode()
    def zs_restore(self, journal: str, entry: dict) -> None:
        self.zs.stack = self._read(journal, entry)

    def _read(self, journal: str, entry: dict) -> StackedState:
        found = SnapshotEntry(**entry)
        stack = StackedState(self.zs.layout, self.zs.device, self.zs.dtype, self.zs.room)
        stack.restore(Snapshots(Path(journal), 0).read(found))
        if stack.checksum() != found.checksum:
            raise ValueError(f"{found.file}: the state in it is not the one that was saved")
        return stack

    def zs_save(self, journal: str, step: int) -> None:
        """Copy the state and write it to the disk in a thread: no request waits for a disk."""
        with self._busy():
            self.zs_course.settle()
            snapshot, checksum = self.zs.stack.snapshot(), self.zs.stack.checksum()
        self.zs.saving = self.zs.pool.submit(Snapshots(Path(journal), 0).write, snapshot, step, checksum, "checkpoint")

    def zs_saved(self) -> dict[str, Any] | None:
        """The entry of what was saved, once it is on the disk."""
        saving = self.zs.saving
        return asdict(saving.result()) if saving is not None and saving.done() else None

    def zs_checksum(self) -> str:
        return self.zs.stack.checksum()

    def zs_policy(self, name: str, tokens: int, slo: str, cache_probes: bool = False) -> None:
        scheduler = self._scheduler()
        scheduler.use(Policy.of(name, tokens, slo, scheduler.max_num_scheduled_tokens))
        scheduler.cache_probes = cache_probes

    def zs_facts(self) -> dict[str, Any]:
        caches = {cache.data_ptr(): cache.numel() * cache.element_size() for cache in self.model_runner.kv_caches}
        memory = {"kv_pool": sum(caches.values()), "adapter_slots": self.zs.slots.nbytes(), "state": self.zs.stack.nbytes()}
        passes = self._scheduler().passes
        memory["packed_weights"] = passes.forward.products.nbytes() if passes and passes.forward.products else 0
        compression = self.zs.stack.facts() | {"longest_s": self.zs_course.longest_compression_s}
        return {"admission": self._scheduler().facts(), "compression": compression, "memory_bytes": memory}

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Users whose requests came meanwhile have waited for training."""
        begin = time.time()
        try:
            yield
        finally:
            self._scheduler().beside(begin, time.time())

    @staticmethod
    def _scheduler() -> UsersFirst:
        """Worker and scheduler share a process: the server has one worker."""
        assert UsersFirst.current is not None
        return UsersFirst.current
