"""The state of zeroth-order training inside the worker: what the probes score and what the updates move.

Nothing here reads a device value back to the host, so a step's kernels are queued while the previous ones run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.profiler import record_function

from bench.api import Direction, Probe, Snapshot, Update, Workload, phase
from bench.config import RunSpec
from bench.data import Batch
from bench.executors.vllm.forward import Forward
from bench.executors.vllm.scoring import losses_of, option_logprobs
from bench.executors.vllm.slots import AdapterSlots
from bench.executors.vllm.views import lora_slices, parameter_views
from bench.registry import make_workload
from workloads.directions import Drawn, Layout, draw
from workloads.parameters.accumulated import AccumulatedState
from workloads.parameters.dense import DenseStates
from workloads.parameters.snapshot import restore, save, state_checksum
from workloads.steps import run_steps
from workloads.tasks.ragged import full_rows, one_token, shared_rows

Reach = dict[str, tuple[int, int, int]]


class Resident:
    """Built once per loaded engine. adapters: vLLM's adapter ids, one for each probe; empty for dense workloads; reach: KV
    handling -> (rows, fewest tokens, most tokens) of one probe's share of a batch."""

    def __init__(self, runner: Any, spec: RunSpec, full: Layout, layout: Layout, adapters: list[int], reach: Reach) -> None:
        self.runner, self.spec, self.layout = runner, spec, layout
        views = parameter_views(runner.model, full)
        self.weights = {name: views[name] for name in layout}
        self.device: torch.device = runner.device
        self.dtype: torch.dtype = runner.model_config.dtype
        self.forward = Forward(runner)
        self.state = AccumulatedState(layout, self.device, self.dtype)
        self.dense: DenseStates | None = None
        self.slots: AdapterSlots | None = None
        self.slot_of: list[int] = []
        self._drawn: dict[Direction, Drawn] = {}
        if adapters:
            manager, kind = runner.lora_manager._adapter_manager, make_workload(spec).plan(0)[0].direction.kind
            self.slot_of = [manager.lora_index_to_id.index(adapter) for adapter in adapters]
            self.slots = AdapterSlots(lora_slices(manager, layout), layout, spec.rank, accumulates=kind == "lowrank")
        self._reach = reach
        if self.slots is not None and self.state.fused:
            from workloads.parameters.fold_kernel import warm_up

            warm_up(self.dtype, spec.rank)
        self.use(spec.batching, spec.kv, spec.lora, spec.loop)

    def use(self, batching: str, kv: str, lora: str, loop: str, variant: str = "") -> None:
        """Switch features between steps; the parameters stay what they are. Plain products per probe are never compiled."""
        self.batching, self.kv, self.lora = batching, kv, lora
        self.forward.compiled = variant != "uncompiled" and lora != "unfused"
        self.forward.graphs = self.forward.compiled and variant != "no graphs"
        if self.slots is not None:
            self.forward.use_lora(lora)
        if lora == "dense" and self.dense is None:
            self.dense = DenseStates(self.weights)
        elif lora != "dense":
            self.dense = None
        if self.forward.graphs and loop == "resident":
            slots = [-1] if lora == "dense" else self.slot_of if batching == "paired" else self.slot_of[:1]
            rows, fewest, most = (len(slots) * number for number in self._reach[kv])
            self.forward.record(rows, slots, (fewest, most))

    @torch.inference_mode()
    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        """Losses [n_probes], float32, on the device."""
        if self.dense is not None:
            return self._score_dense(batch, probes)
        self.prepare(probes)
        return self.score_prepared(batch, len(probes))

    @torch.inference_mode()
    def score_prepared(self, batch: Batch, probes: int) -> torch.Tensor:
        """Losses of the states that stand in the first slots."""
        used = self.slot_of[:probes]
        with phase("score"):
            groups = [used] if self.batching == "paired" else [[slot] for slot in used]
            return torch.cat([self._losses(batch, group) for group in groups])

    @torch.inference_mode()
    def prepare(self, probes: Sequence[Probe]) -> None:
        """Bring the slots to the states of a probe plan: fold what has become stale, then write each slot."""
        self._fold({probe.direction.epoch for probe in probes})
        assert self.slots is not None
        with phase("perturb"):
            for slot, probe in zip(self.slot_of, probes, strict=False):
                drawn, held = self._draw(probe.direction), self.state.factor(probe.direction.epoch)
                with record_function("zo.op.state_write"):
                    self.slots.write(slot, drawn, probe.shift, held)

    @torch.inference_mode()
    def prepare_current(self) -> bool:
        """Bring the first slot, or else the weights, to the current state without a probe; whether the slot is to be used."""
        if self.slots is None or self.dense is not None:
            self._write_dense(None)
            return False
        kept = {epoch for epoch, pending in self.state.pending.items() if pending.last.kind == "lowrank"}
        self._fold(kept)
        for epoch in kept:  # at most one: low-rank directions share V until everything is folded
            drawn = self._draw(self.state.pending[epoch].last)
            self.slots.write(self.slot_of[0], drawn, 0.0, self.state.factor(epoch))
        return bool(kept)

    @torch.inference_mode()
    def write_dense(self, probe: Probe | None) -> None:
        """Put one probe's state into the weights, or the current state for None."""
        with phase("perturb"):
            self._write_dense(probe)

    @torch.inference_mode()
    def apply(self, update: Update) -> None:
        """Move the parameters: low-rank terms into the accumulated state, dense noise into the weights."""
        with phase("update"):
            for direction, coefficient in update.terms:
                drawn = self._draw(direction)
                if direction.kind == "dense":
                    assert self.dense is not None
                    self.dense.move(_scaled(drawn, coefficient), direction.seed, direction.step, direction.query)
                else:
                    self.state.add(drawn, coefficient)
            self._drawn.clear()

    @torch.inference_mode()
    def run_steps(self, workload: Workload, step: int, batches: Sequence[Batch]) -> torch.Tensor:
        """Whole steps; losses [n_batches, n_probes] on the device."""
        return run_steps(self, workload, step, batches)

    @torch.inference_mode()
    def replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        """Do again what a step did, without scoring: fold what its probes made stale, then move."""
        self._fold({probe.direction.epoch for probe in workload.plan(step)})
        self.apply(workload.update(step, losses.to(self.device if self.spec.loop == "resident" else "cpu")))

    def snapshot(self) -> Snapshot:
        return save(self.weights, self.state)

    @torch.inference_mode()
    def restore(self, snapshot: Snapshot) -> None:
        restore(snapshot, self.weights, self.state, self.dense)

    def checksum(self) -> str:
        return state_checksum(self.weights, self.state)

    @torch.inference_mode()
    def evaluate(self, examples: Batch, chunk: int) -> torch.Tensor:
        """Mean log-prob of each option [n_examples, n_options], float32 on the CPU, at the current state."""
        slots = self.slot_of[:1] if self.prepare_current() else [-1]
        parts = [
            option_logprobs(self.forward, full_rows(examples[i : i + chunk], 1), slots, self.runner.model)
            for i in range(0, len(examples), chunk)
        ]
        if self.dense is not None:
            self.dense.restore()
        return torch.cat([part[0] for part in parts]).cpu()

    @torch.inference_mode()
    def parameters(self) -> dict[str, torch.Tensor]:
        """Scoped parameters with everything pending, float32 on the CPU."""
        pending, found = self.state.values(), {}
        for name, weight in self.weights.items():
            delta, value = pending.delta(name), weight.float()
            found[name] = (value if delta is None else value + delta).cpu().clone()
        return found

    def facts(self) -> dict[str, Any]:
        kind, attention = type(self.runner), self.runner.attn_groups[0][0].backend.get_name()
        engine = {"model_runner": f"{kind.__module__}.{kind.__name__}", "attention_backend": attention}
        return engine | self.state.facts()

    def memory_parts(self) -> dict[str, int]:
        parameters = {p.data_ptr(): p.numel() * p.element_size() for p in self.runner.model.parameters()}
        caches = {c.data_ptr(): c.numel() * c.element_size() for c in self.runner.kv_caches}
        return {
            "weights": sum(parameters.values()) + (self.dense.nbytes() if self.dense else 0),
            "kv_pool": sum(caches.values()),
            "adapter_slots": self.slots.nbytes() if self.slots else 0,
            "accumulated_state": self.state.nbytes(),
        }

    def _losses(self, batch: Batch, slots: list[int]) -> torch.Tensor:
        make = shared_rows if self.kv == "shared" and one_token(batch) else full_rows
        labels = self.forward.to_device_labels(batch)
        return losses_of(self.forward, make(batch, len(slots)), slots, labels, self.runner.model)

    def _score_dense(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        self._fold({probe.direction.epoch for probe in probes})
        losses = []
        for probe in probes:
            self.write_dense(probe)
            with phase("score"):
                losses.append(self._losses(batch, [-1]))
        assert self.dense is not None
        with phase("perturb"):
            self.dense.restore()
        return torch.cat(losses)

    def _write_dense(self, probe: Probe | None) -> None:
        if self.dense is None:
            return
        pending = self.state.values()
        drawn = None if probe is None else self._draw(probe.direction)
        if drawn is None and not self.state.pending:
            self.dense.restore()
            return

        def delta(name: str) -> torch.Tensor | None:
            held = pending.delta(name)
            if drawn is None or probe is None:
                return held
            moved = drawn.delta(name).mul_(probe.shift)
            return moved if held is None else moved.add_(held)

        self.dense.write(delta)

    def _fold(self, current: set[tuple[int, int]]) -> None:
        stale = self.state.stale(current)
        if stale:
            with phase("fold"):
                self.state.fold(self.weights, stale)
                if self.dense is not None:
                    self.dense.sync()

    def _draw(self, direction: Direction) -> Drawn:
        """The two probes of a query and its update share one draw."""
        if direction not in self._drawn:
            with record_function("zo.op.direction_generation"):
                self._drawn[direction] = draw(direction, self.layout, self.device, self.dtype)
        return self._drawn[direction]


def _scaled(drawn: Drawn, coefficient: torch.Tensor) -> Callable[[str], torch.Tensor]:
    return lambda name: drawn.delta(name).mul_(coefficient)
