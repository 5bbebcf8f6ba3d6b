"""The state of training where the weights are, and the adapter slots it is written to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bench.api import Direction, Probe
from bench.config import RunSpec
from bench.executors.vllm.views import lora_slices
from bench.registry import make_workload, workload_class
from bench.serving.slots import StackedSlots
from workloads.directions import Drawn, Layout, draw
from workloads.parameters.stacked import StackedState


class Trained:
    """The state of training, and the slots it is written to. probes, ring: vLLM's ids of their adapters."""

    def __init__(self, runner: Any, spec: RunSpec, layout: Layout, probes: list[int], ring: list[int]) -> None:
        manager = runner.lora_manager._adapter_manager
        self.layout, self.device, self.dtype = layout, runner.device, runner.model_config.dtype
        self.workload, self.probes = make_workload(spec), probes
        self.shares_v = workload_class(spec.workload).kind == "lowrank"
        self.slot_of = {adapter: manager.lora_index_to_id.index(adapter) for adapter in (*probes, *ring)}
        self.slots = StackedSlots(lora_slices(manager, layout), layout, spec.rank, accumulates=self.shares_v)
        self.slot_bytes = self.slots.nbytes()
        update = 0 if self.shares_v else len({probe.direction for probe in self.workload.plan(0)}) * spec.rank
        self.room = self.slots.room - update  # a state is published with its last update, whose columns are its own
        self.stack = self.fresh()
        self._drawn: dict[Direction, Drawn] = {}

    def fresh(self) -> StackedState:
        """Nothing learned."""
        return StackedState(self.layout, self.device, self.dtype, self.room)

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
