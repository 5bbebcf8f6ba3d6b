"""The state of zeroth-order training inside the worker: what the probes score and what the updates move.

Nothing here reads a device value back to the host, so a step's kernels are queued while the previous ones run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from bench.api import Probe, Update, Workload, mark, phase
from bench.config import RunSpec
from bench.data import Batch, Objective
from bench.executors.vllm.engine import forward_tokens
from bench.executors.vllm.forward import Forward
from bench.executors.vllm.packing import Reach
from bench.executors.vllm.scoring import Head, losses_of, option_logprobs
from bench.executors.vllm.shards import from_first, ranks, shards_of
from bench.executors.vllm.slots import AdapterSlots
from bench.executors.vllm.tracing import Tracing
from bench.executors.vllm.trained import TrainedSlots
from bench.executors.vllm.views import clear_slots, lora_slices, parameter_views
from bench.registry import make_workload, workload_class
from workloads.directions import Layout
from workloads.models.adapter import SCOPE, Adapter
from workloads.parameters.parameters import Parameters, epochs
from workloads.parameters.shards import Shards
from workloads.steps import core_step, rounds
from workloads.tasks.loss import stacked
from workloads.tasks.passes import Tokens, mean_loss, passes, split
from workloads.tasks.ragged import Rows, full_rows, labels_only, tree_rows


class Resident:
    """Built once per loaded engine. adapters: vLLM's adapter ids, one for each probe; empty for dense workloads; reach: KV
    handling -> (rows, fewest tokens, most tokens) of one probe's share of a batch; layout: the weights that probes reach."""

    def __init__(
        self,
        runner: Any,
        spec: RunSpec,
        layout: Layout,
        adapters: list[int],
        reach: dict[str, Reach],
        objective: Objective,
    ) -> None:
        self.runner, self.spec = runner, spec
        self.shards = Shards(layout, shards_of(runner.model, layout)) if ranks() > 1 else None
        self.layout: Layout = layout if self.shards is None else self.shards.layout
        self.device: torch.device = runner.device
        self.dtype: torch.dtype = runner.model_config.dtype
        self.forward, self.head = Forward(runner), Head(runner.model)
        self.trained = Adapter(layout, spec.adapter_rank, spec.adapter_alpha) if spec.scope == SCOPE else None
        kept = None
        if spec.quantization != "none":  # what it is made of in vLLM is imported where it is asked for
            from bench.executors.vllm.quantized import take_masters

            kept = take_masters(runner.model, self.layout, folds=self.trained is None)
        if self.trained is None:
            weights = parameter_views(runner.model, self.layout) if kept is None else kept.masters
            self.moved = Parameters(weights, layout, self.device, self.dtype, self.shards, kept)
        else:
            initial = self.trained.initial(spec.seed, self.device)
            self.moved = Parameters(initial, self.trained.layout, self.device, torch.float32)
        self.slots: AdapterSlots | TrainedSlots | None = None
        self.slot_of: list[int] = []
        if adapters:
            manager, kind = runner.lora_manager._adapter_manager, workload_class(spec.workload).kind
            self.slot_of = [manager.lora_index_to_id.index(adapter) for adapter in adapters]
            clear_slots(manager)
            slices = lora_slices(manager, layout)
            if self.trained is None:
                self.slots = AdapterSlots(slices, self.layout, spec.rank, accumulates=kind == "lowrank")
            else:
                self.slots = TrainedSlots(slices, self.trained)
        self._reach, self.objective = reach, objective
        self.tracing: Tracing | None = None
        if self.slots is not None and self.moved.state.fused:
            from workloads.parameters.fold_kernel import warm_up

            warm_up(self.dtype, spec.rank)
        self.use(spec)

    def use(self, spec: RunSpec) -> None:
        """Switch features between steps; the parameters stay what they are. Plain products per probe are never compiled."""
        self.batching, self.kv, self.lora, self.loop = spec.batching, spec.kv, spec.lora, spec.loop
        self.most = spec.max_tokens
        self.forward.compiled = spec.variant not in ("uncompiled", "recorded") and self.lora != "unfused"
        self.forward.recorded = spec.variant in ("", "recorded", "pooled attention")
        self.forward.pooled = spec.variant == "pooled attention"
        self.forward.packs = self.lora != "dense"  # dense states rewrite the weights before every forward
        if self.slots is not None:
            self.forward.use_lora(self.lora)
        self.moved.keep_copy(self.lora == "dense")
        if self.forward.recorded and self.loop == "resident":
            sizes = sorted({len(probes) for probes in rounds(make_workload(spec))})
            for slots in [[-1]] if self.lora == "dense" else [slots for size in sizes for slots in self._groups(size)]:
                self.forward.record(slots, self._reach[self.kv], self.most)

    @torch.inference_mode()
    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        """Losses [n_probes], float32, on the device."""
        if self.lora == "dense":
            return self._score_dense(batch, probes)
        self.prepare(probes)
        return self.score_prepared(batch, len(probes))

    @torch.inference_mode()
    def score_prepared(self, batch: Batch, probes: int) -> torch.Tensor:
        """Losses of the states that stand in the first slots."""
        with phase("score"):
            return from_first(torch.cat([self._losses(batch, group) for group in self._groups(probes)]))

    @torch.inference_mode()
    def prepare(self, probes: Sequence[Probe]) -> None:
        """Bring the slots to the states of a probe plan: fold what has become stale, then write each slot."""
        self.moved.fold(epochs(probes))
        assert self.slots is not None
        with phase("perturb"):
            for slot, probe in zip(self.slot_of, probes, strict=False):
                if isinstance(self.slots, TrainedSlots):
                    with mark("state_write"):
                        self.slots.write(slot, self.moved, probe)
                    continue
                drawn, held = self.moved.draw(probe.direction), self.moved.state.factor(probe.direction.epoch)
                with mark("state_write"):
                    self.slots.write(slot, drawn, probe.shift, held)

    @torch.inference_mode()
    def prepare_current(self) -> bool:
        """Bring the first slot, or else the weights, to the current state without a probe; whether the slot is to be used."""
        if self.slots is None or self.lora == "dense":
            if self.lora == "dense":
                self.moved.write(None)
            return False
        if isinstance(self.slots, TrainedSlots):
            self.slots.write(self.slot_of[0], self.moved, None)
            return True
        pending = self.moved.state.pending
        kept = {epoch for epoch, held in pending.items() if held.last.kind == "lowrank"}
        self.moved.fold(kept)
        for epoch in kept:  # at most one: low-rank directions share V until everything is folded
            drawn = self.moved.draw(pending[epoch].last)
            self.slots.write(self.slot_of[0], drawn, 0.0, self.moved.state.factor(epoch))
        return bool(kept)

    @torch.inference_mode()
    def write_dense(self, probe: Probe | None) -> None:
        """Put one probe's state into the weights, or the current state for None."""
        with phase("perturb"):
            self.moved.write(probe)

    def apply(self, update: Update) -> None:
        self.moved.apply(update)

    @torch.inference_mode()
    def step(self, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
        with nullcontext() if self.tracing is None else self.tracing.step():
            return core_step(self, workload, step, batch)

    def replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        self.moved.replay(workload, step, losses.to(self.device if self.loop == "resident" else "cpu"))

    @torch.inference_mode()
    def evaluate(self, examples: Batch, chunk: int) -> torch.Tensor:
        """Mean log-prob of each option [n_examples, n_options], float32 on the CPU, at the current state."""
        slots = self.slot_of[:1] if self.prepare_current() else [-1]
        chunks = [examples[i : i + chunk] for i in range(0, len(examples), chunk)]
        parts = [
            option_logprobs(self.forward, self._rows(part, 1), slots, self.head)
            for some in chunks
            for part in split(some, self._tokens(1), self.most)
        ]
        self.moved.back()
        return stacked([part[0] for part in parts]).cpu()

    def facts(self) -> dict[str, Any]:
        kind, attention = type(self.runner), self.runner.attn_groups[0][0].backend.get_name()
        engine = {"model_runner": f"{kind.__module__}.{kind.__name__}", "attention_backend": attention}
        return engine | self.moved.facts()

    def written(self, queries: int) -> int:
        """Bytes that an update writes into the weights."""
        return self.moved.written(make_workload(self.spec), self.spec.weight_decay, queries)

    def memory_parts(self) -> dict[str, int]:
        parameters = {p.data_ptr(): p.numel() * p.element_size() for p in self.runner.model.parameters()}
        caches = {c.data_ptr(): c.numel() * c.element_size() for c in self.runner.kv_caches}
        held = self.moved.nbytes()
        trained = 0 if self.trained is None else 4 * self.trained.size
        return {
            "weights": sum(parameters.values()) + held["copy"] + (self.forward.products.nbytes() if self.forward.products else 0),
            "kv_pool": sum(caches.values()),
            "adapter_slots": self.slots.nbytes() if self.slots else 0,
            "accumulated_state": held["accumulated_state"] + trained,
            "running_means": held["running_means"],
            "master": held["master"],
        }

    def _groups(self, probes: int) -> list[list[int]]:
        """The slots that are scored together, pass by pass."""
        used = self.slot_of[:probes]
        return [used] if self.batching == "paired" else [[slot] for slot in used]

    def _losses(self, batch: Batch, slots: list[int]) -> torch.Tensor:
        def loss(examples: Batch) -> torch.Tensor:
            labels = self.kv == "shared" and labels_only(examples, self.objective)
            rows = self._rows(examples, len(slots))
            return losses_of(self.forward, rows, slots, examples, self.objective, self.head, labels_only=labels)

        return mean_loss(passes(batch, self.objective, self._tokens(len(slots)), self.most), loss)

    def _tokens(self, probes: int) -> Tokens:
        return forward_tokens(self.kv, probes, self.most, self.forward.shares)

    def _rows(self, batch: Batch, probes: int) -> Rows:
        return tree_rows(batch, probes, self.forward.shares) if self.kv == "shared" else full_rows(batch, probes)

    def _score_dense(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        self.moved.fold(epochs(probes))
        losses = []
        for probe in probes:
            self.write_dense(probe)
            with phase("score"):
                losses.append(self._losses(batch, [-1]))
        with phase("perturb"):
            self.moved.back()
        return from_first(torch.cat(losses))
