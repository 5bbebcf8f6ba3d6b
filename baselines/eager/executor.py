"""Plain PyTorch on a Hugging Face model: what a careful loop reaches without a serving runtime, feature by feature.

batching    sequential | paired: one forward per probe, or all probes' rows in one
kv          recompute | shared: one row per option, or each prompt once and its one-token options read from the last position
lora        dense: states written into the weights and back (a copy of the scoped weights is kept, so restoring is exact);
            unfused | fused: adapters beside the weights, one product per probe or one for all
The parameters are the same whatever the features: weights, plus low-rank updates of one epoch as factors in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import record_function

from baselines.eager.modules import wrap
from baselines.eager.scoring import Scorer
from baselines.eager.states import AdapterStates
from bench.api import Direction, Probe, Snapshot, Update, Workload, phase
from bench.capabilities import CAPABILITIES
from bench.config import RunSpec
from bench.data import Batch, ModelSource
from workloads.directions import Drawn, draw
from workloads.models.memory import release
from workloads.models.weights import layout, load_model
from workloads.parameters.accumulated import AccumulatedState, Epoch
from workloads.parameters.dense import DenseStates
from workloads.parameters.rounding import add_
from workloads.parameters.snapshot import restore, save, state_checksum
from workloads.steps import run_steps
from workloads.tasks.loss import classification_loss
from workloads.tasks.ragged import one_token

if TYPE_CHECKING:
    from bench.data import TaskData


class EagerExecutor:
    """The features are the spec's; `switch` changes them between steps."""

    name = "eager"
    capabilities = CAPABILITIES["eager"]

    def load(self, spec: RunSpec, source: ModelSource, task: TaskData) -> None:
        self.capabilities.check(spec)
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        self.device, self._task = torch.device(spec.device), task
        model: Any = load_model(source, self.dtype, self.device)
        self._total_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self.layout = layout(model, spec.scope)
        self.weights = {name: model.get_parameter(name).data for name in self.layout}
        head = model.get_output_embeddings().weight
        head_name = next((name for name in self.layout if model.get_parameter(name) is head), None)
        self._current = wrap(model, self.layout)
        self._scorer = Scorer(model, head_name, task.pad_id)
        self.state = AccumulatedState(self.layout, self.device, self.dtype)
        self._drawn: dict[Direction, Drawn] = {}
        self._adapters: AdapterStates | None = None
        self.dense: DenseStates | None = None
        self._use(spec)

    def switch(self, *, batching: str, kv: str, lora: str, loop: str | None = None, variant: str = "") -> None:
        """Change features between steps; the parameters stay what they are. UsageError for what cannot go together."""
        spec = replace(self.spec, batching=batching, kv=kv, lora=lora)
        self.capabilities.check(spec, variant)
        self._use(spec, variant)

    @torch.inference_mode()
    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        self._fold({probe.direction.epoch for probe in probes})
        labels = torch.tensor([example.label for example in batch]).to(self.device, non_blocking=True)
        parts = [probes] if self.spec.batching == "paired" else [[probe] for probe in probes]
        scores: list[torch.Tensor] = []
        for part in parts:
            self._write(part)
            scores += self._scores(batch, len(part), self._shared(batch))
        self._restore()
        with phase("score"):
            return torch.stack([classification_loss(score, labels) for score in scores])

    @torch.inference_mode()
    def apply(self, update: Update) -> None:
        """Low-rank terms go into the accumulated state; Gaussian ones into the weights, tensor by tensor."""
        with phase("update"):
            for direction, coefficient in update.terms:
                drawn = self._draw(direction)
                if direction.kind != "dense":
                    self.state.add(drawn, coefficient)
                for name, weight in self.weights.items():
                    if not drawn.factored(name):
                        delta, kept = drawn.noise(name).float() * coefficient, self._kept(name)
                        add_(kept, delta, direction.seed, direction.step, direction.query, name)
                        if kept is not weight:
                            weight.copy_(kept)
            self._drawn.clear()

    @torch.inference_mode()
    def run_steps(self, workload: Workload, step: int, batches: Sequence[Batch]) -> torch.Tensor:
        return run_steps(self, workload, step, batches)

    @torch.inference_mode()
    def replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        self._fold({probe.direction.epoch for probe in workload.plan(step)})
        self.apply(workload.update(step, losses.to(self.device)))

    def snapshot(self) -> Snapshot:
        return save(self.weights, self.state)

    @torch.inference_mode()
    def restore(self, snapshot: Snapshot) -> None:
        restore(snapshot, self.weights, self.state, self.dense)

    def checksum(self) -> str:
        return state_checksum(self.weights, self.state)

    def seed(self, step: int) -> int:
        return self.spec.seed

    @torch.inference_mode()
    def evaluate(self, examples: Batch) -> torch.Tensor:
        """One full row per option: the log-probs are normalised over the vocabulary whatever `kv` is."""
        if len(self.state.pending) > 1:
            self._fold(set())
        self._write([Probe(pending.last, 0.0) for pending in self.state.pending.values()])
        size = self.spec.batch_size
        parts = [self._scores(examples[i : i + size], 1, shared=False)[0] for i in range(0, len(examples), size)]
        self._restore()
        return torch.cat(parts).cpu()

    @torch.inference_mode()
    def parameters(self) -> dict[str, torch.Tensor]:
        pending, found = self.state.values(), {}
        for name, weight in self.weights.items():
            delta, value = pending.delta(name), weight.float()
            found[name] = (value if delta is None else value + delta).cpu().clone()
        return found

    def details(self) -> dict[str, Any]:
        exact = self._shared(self._task.train)
        return {
            "attention_backend": "eager",
            "threads": torch.get_num_threads(),
            "kv_used": self.spec.kv if self.spec.kv == "recompute" or exact else "recompute",
            **self.state.facts(),
        }

    def memory_parts(self) -> dict[str, int]:
        return {
            "weights": self._total_bytes + (self.dense.nbytes() if self.dense else 0),
            "kv_pool": 0,
            "adapter_slots": self._adapters.nbytes() if self._adapters else 0,
            "accumulated_state": self.state.nbytes(),
        }

    def work(self, batch: Batch, probes: Sequence[Probe]) -> dict[str, int]:
        n, shared, itemsize = len(probes), self._shared(batch), self.dtype.itemsize
        queries = len({probe.direction for probe in probes})
        scored = self._scorer.work(batch, shared)
        matrices = [shape for shape in self.layout.values() if len(shape) == 2 and self.spec.workload != "mezo"]
        factored = sum(out * inner for out, inner in matrices) * itemsize
        scoped = sum(w.numel() for w in self.weights.values()) * itemsize
        dense = self.spec.lora == "dense"
        written = (scoped - factored) * queries * (2 if dense else 1)  # Gaussian updates, and their copy
        columns = sum(out for out, _ in matrices) * self.spec.rank * (2 if self.spec.workload == "lozo" else 1)
        groups = queries if self.spec.batching == "paired" else n
        return {
            "forwards": 1 if self.spec.batching == "paired" else n,
            **{name: n * count for name, count in scored.items()},
            "weight_bytes_written": written + ((n + 1) * scoped if dense else 0),
            "fold_bytes_written": factored * (2 if dense else 1),
            "adapter_bytes_written": 0 if dense else groups * columns * itemsize + n * (scoped - factored),
            "host_syncs": 0,
        }

    def close(self) -> None:
        self.__dict__.clear()
        release()

    def _use(self, spec: RunSpec, variant: str = "") -> None:
        self.spec = spec
        self._scorer.use(variant)
        if spec.lora != "dense":
            self.dense = None
        elif self.dense is None:
            self.dense = DenseStates(self.weights)

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
            drawn = {probe.direction: self._draw(probe.direction) for probe in probes}
            held = self.state.factor(probes[0].direction.epoch)
            if self.dense is not None:
                (probe,) = probes
                self.dense.write(_delta(drawn[probe.direction], probe.shift, held))
                return
            with record_function("zo.op.state_write"):
                fused = self.spec.lora == "fused"
                self._adapters = self._current.states = AdapterStates(probes, drawn, held, self.weights, fused)

    def _restore(self) -> None:
        self._current.states = None
        if self.dense is not None:
            with phase("perturb"):
                self.dense.restore()

    def _fold(self, current: set[Epoch]) -> None:
        """Fold what the next probes do not share. Probes of several epochs share nothing."""
        stale = self.state.stale(current if len(current) == 1 else set())
        if stale:
            with phase("fold"):
                self.state.fold(self.weights, stale)
                if self.dense is not None:
                    self.dense.sync()

    def _kept(self, name: str) -> torch.Tensor:
        """Where a parameter's value is kept between steps."""
        return self.weights[name] if self.dense is None else self.dense.base[name]

    def _draw(self, direction: Direction) -> Drawn:
        """The probes of a query and its update share one draw."""
        if direction not in self._drawn:
            with record_function("zo.op.direction_generation"):
                self._drawn[direction] = draw(direction, self.layout, self.device, self.dtype)
        return self._drawn[direction]


def _delta(drawn: Drawn, shift: float, held: torch.Tensor | None) -> Callable[[str], torch.Tensor]:
    """shift * Z plus the accumulated state over the same V, float32."""

    def delta(name: str) -> torch.Tensor:
        moved = drawn.delta(name) * shift
        if held is None or not drawn.factored(name):
            return moved
        return moved.addmm_(drawn.slice_u(held.view(-1), name), drawn.vt(name).float())

    return delta
