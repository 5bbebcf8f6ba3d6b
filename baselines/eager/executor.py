"""Plain PyTorch on a Hugging Face model: what a careful loop reaches without a serving runtime, feature by feature.

batching    sequential | paired: one forward per probe, or all probes' rows in one
kv          recompute | shared: one row per option, or each prompt once and its one-token options read from the last position
lora        dense: states written into the weights and back (a copy of the scoped weights is kept, so restoring is exact);
            unfused | fused: adapters beside the weights, one product per probe or one for all
The parameters are the same whatever the features: weights, plus low-rank updates of one epoch as factors in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from baselines.eager.modules import wrap
from baselines.eager.scoring import Scorer
from baselines.eager.states import AdapterStates, groups
from bench.api import FACTORED, Probe, Snapshot, Update, Workload, mark, phase
from bench.config import RunSpec
from bench.data import Batch, ModelSource, TaskData
from bench.registry import check, make_workload
from workloads.models.memory import release
from workloads.models.weights import layout, load_model
from workloads.parameters.parameters import Parameters, epochs
from workloads.steps import core_step
from workloads.tasks.loss import classification_loss
from workloads.tasks.ragged import one_token


class EagerExecutor:
    """The features are the spec's; `switch` changes them between steps."""

    name = "eager"
    leaves_residue = False

    def load(self, spec: RunSpec, source: ModelSource, task: TaskData) -> None:
        check(spec)
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        self.device, self._task = torch.device(spec.device), task
        model: Any = load_model(source, self.dtype, self.device)
        self._total_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self.layout = layout(model, spec.scope)
        weights = {name: model.get_parameter(name).data for name in self.layout}
        self.moved = Parameters(weights, self.layout, self.device, self.dtype)
        head = model.get_output_embeddings().weight
        head_name = next((name for name in self.layout if model.get_parameter(name) is head), None)
        self._current = wrap(model, self.layout)
        self._scorer = Scorer(model, head_name, task.pad_id)
        self._adapters: AdapterStates | None = None
        self._use(spec)

    def switch(self, spec: RunSpec) -> None:
        check(spec)
        self._use(spec)

    @torch.inference_mode()
    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        self.moved.fold(epochs(probes))
        labels = torch.tensor([example.label for example in batch]).to(self.device, non_blocking=True)
        parts = [probes] if self.spec.batching == "paired" else [[probe] for probe in probes]
        scores: list[torch.Tensor] = []
        for part in parts:
            self._write(part)
            scores += self._scores(batch, len(part), self._shared(batch))
        self._restore()
        with phase("score"):
            return torch.stack([classification_loss(score, labels) for score in scores])

    def apply(self, update: Update) -> None:
        self.moved.apply(update)

    def step(self, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
        return core_step(self, workload, step, batch)

    def replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        self.moved.replay(workload, step, losses.to(self.device))

    def snapshot(self) -> Snapshot:
        return self.moved.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        self.moved.restore(snapshot)

    def checksum(self) -> str:
        return self.moved.checksum()

    def parameters(self) -> dict[str, torch.Tensor]:
        return self.moved.values()

    def seed(self, step: int) -> int:
        return self.spec.seed

    @torch.inference_mode()
    def evaluate(self, examples: Batch) -> torch.Tensor:
        """One full row per option: the log-probs are normalised over the vocabulary whatever `kv` is."""
        if len(self.moved.state.pending) > 1:
            self.moved.fold()
        self._write([Probe(pending.last, 0.0) for pending in self.moved.state.pending.values()])
        size = self.spec.batch_size
        parts = [self._scores(examples[i : i + size], 1, shared=False)[0] for i in range(0, len(examples), size)]
        self._restore()
        return torch.cat(parts).cpu()

    def details(self) -> dict[str, Any]:
        exact = self._shared(self._task.train)
        return {
            "attention_backend": "eager",
            "threads": torch.get_num_threads(),
            "kv_used": self.spec.kv if self.spec.kv == "recompute" or exact else "recompute",
            **self.moved.facts(),
        }

    def memory_parts(self) -> dict[str, int]:
        held = self.moved.nbytes()
        return {
            "weights": self._total_bytes + held["copy"],
            "kv_pool": 0,
            "adapter_slots": self._adapters.nbytes() if self._adapters else 0,
            "accumulated_state": held["accumulated_state"],
            "running_means": held["running_means"],
        }

    def work(self, batch: Batch, probes: Sequence[Probe]) -> dict[str, int]:
        n, shared, itemsize = len(probes), self._shared(batch), self.dtype.itemsize
        queries = len({probe.direction for probe in probes})
        scored = self._scorer.work(batch, shared)
        kind = probes[0].direction.kind
        matrices = [shape for shape in self.layout.values() if len(shape) == 2 and kind in FACTORED]
        factored = sum(out * inner for out, inner in matrices) * itemsize
        scoped = sum(w.numel() for w in self.moved.weights.values()) * itemsize
        dense = self.spec.lora == "dense"
        written = self.moved.written(self._workload, self.spec.weight_decay, queries)
        columns = sum(out for out, _ in matrices) * self.spec.rank * (2 if kind == "lowrank" else 1)
        sides = len(groups(probes)) if self.spec.batching == "paired" else n
        return {
            "forwards": 1 if self.spec.batching == "paired" else n,
            **{name: n * count for name, count in scored.items()},
            "weight_bytes_written": written + ((n + 1) * scoped if dense else 0),
            "fold_bytes_written": factored * (2 if dense else 1),
            "adapter_bytes_written": 0 if dense else sides * columns * itemsize + n * (scoped - factored),
            "host_syncs": 0,
        }

    def close(self) -> None:
        self.__dict__.clear()
        release()

    def _use(self, spec: RunSpec) -> None:
        self.spec, self._workload = spec, make_workload(spec)
        self._scorer.use(spec.variant)
        self.moved.keep_copy(spec.lora == "dense")

    def _shared(self, batch: Batch) -> bool:
        exact = self._task.single_token_options and not self._scorer.has_bias
        return self.spec.kv == "shared" and exact and one_token(batch)

    def _scores(self, batch: Batch, probes: int, shared: bool) -> torch.Tensor:
        """Option log-probs [probes, n_examples, n_options] of the states written, in one forward."""
        with phase("score"):
            return self._scorer.option_logprobs(batch, probes, self._current.states, shared)

    def _write(self, probes: Sequence[Probe]) -> None:
        """Bring the weights, or the adapters, to the states of the probes; none: the weights as they are."""
        if not probes:
            return
        with phase("perturb"):
            if self.spec.lora == "dense":
                (probe,) = probes
                self.moved.write(probe)
                return
            drawn = {probe.direction: self.moved.draw(probe.direction) for probe in probes}
            held = self.moved.state.factor(probes[0].direction.epoch)
            with mark("state_write"):
                fused = self.spec.lora == "fused"
                self._adapters = self._current.states = AdapterStates(probes, drawn, held, self.moved.weights, fused)

    def _restore(self) -> None:
        self._current.states = None
        if self.spec.lora == "dense":
            with phase("perturb"):
                self.moved.back()
