"""Plain PyTorch on a Hugging Face model: what a careful loop reaches without a serving runtime, feature by feature.

batching    sequential | paired: one forward per probe, or all probes' rows in one
kv          recompute | shared: one row per option, or each distinct prefix once; one-token options are read from their prompt
lora        dense: states written into the weights and back (a copy of the scoped weights is kept, so restoring is exact);
            unfused | fused: adapters beside the weights, one product per probe or one for all
The parameters are the same whatever the features: weights, plus low-rank updates of one epoch as factors in float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from baselines.eager.modules import wrap
from baselines.eager.scoring import OptionScorer
from baselines.eager.states import AdapterStates, groups
from baselines.eager.trained import TrainedStates
from bench.api import FACTORED, Probe, Snapshot, Update, Workload, mark, phase
from bench.config import RunSpec
from bench.data import Batch, ModelSource, TaskData
from bench.registry import check, make_workload
from workloads.models.adapter import FLAT, SCOPE, Adapter
from workloads.models.generate import greedy, rows_at_once
from workloads.models.memory import release
from workloads.models.quantized import kept, quantize
from workloads.models.room import Made, room, scored_share
from workloads.models.scope import layout, views
from workloads.models.weights import load_model
from workloads.parameters.parameters import Parameters, epochs
from workloads.steps import core_step
from workloads.tasks.collate import places
from workloads.tasks.loss import batch_loss, stacked
from workloads.tasks.passes import Pass, mean_loss, passes, split
from workloads.tasks.ragged import labels_only, one_token
from workloads.tasks.reward import Answered, reward_losses


class EagerExecutor:
    """The features are the spec's; `switch` changes them between steps."""

    name = "eager"
    leaves_residue = False

    def load(self, spec: RunSpec, source: ModelSource, task: TaskData) -> None:
        check(spec)
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        self.device, self._task, self._source = torch.device(spec.device), task, source
        model: Any = load_model(source, self.dtype, self.device)
        self._total_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self._trained = Adapter.of(model, spec) if spec.scope == SCOPE else None
        if self._trained is None:
            self.layout = reached = layout(model, spec.scope)
            held = kept(model, source, spec.scope) if spec.quantization == "fp8" else None
            weights = views(model, spec.scope) if held is None else held.masters
            self.moved = Parameters(weights, self.layout, self.device, self.dtype, requantized=held)
        else:
            self.layout, reached = self._trained.layout, dict(self._trained.targets)
            if spec.quantization != "none":
                quantize(model, source, spec.quantization, products=True)
            self.moved = Parameters(self._trained.initial(spec.seed, self.device), self.layout, self.device, torch.float32)
        self._current = wrap(model, reached)
        self._scorer = OptionScorer(model, self._current, task.pad_id)
        self._adapters: AdapterStates | TrainedStates | None = None
        self._answers = Answered((), 1)
        self._use(spec)

    def switch(self, spec: RunSpec) -> None:
        check(spec)
        self._use(spec)

    @torch.inference_mode()
    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        self.moved.fold(epochs(probes))
        if self.spec.reward is not None:
            return self._reward_losses(batch, probes)
        groups = [probes] if self.spec.batching == "paired" else [[probe] for probe in probes]
        losses = []
        for group in groups:
            self._write(group)
            losses.append(self._losses(batch, len(group)))
        self._restore()
        return torch.cat(losses)

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
        values = self.moved.values()
        return values if self._trained is None else self._trained.named(values)

    def seed(self, step: int) -> int:
        return self.spec.seed

    @torch.inference_mode()
    def evaluate(self, examples: Batch) -> torch.Tensor:
        """The log-probs are normalised over the vocabulary whatever `kv` is."""
        self._write_current()
        size = self.spec.batch_size
        form = "tree" if self.spec.kv == "shared" and self._scorer.packs else "full"
        chunks = [examples[i : i + size] for i in range(0, len(examples), size)]
        parts = [self._scores(part, 1, form)[0] for chunk in chunks for part in split(chunk, places, self.spec.max_tokens)]
        self._restore()
        return stacked(parts).cpu()

    @torch.inference_mode()
    def generate(self, examples: Batch) -> list[tuple[int, ...]]:
        self._write_current()
        self._scorer.model.set_attn_implementation("eager")
        answers = greedy(self._scorer.model, examples, self._task, self.spec.batch_size, self.spec.max_tokens)
        self._restore()
        return answers

    def details(self) -> dict[str, Any]:
        used = "recompute" if self._form(self._task.train) == "full" else "shared"
        family = type(self._scorer.model).__name__
        fallen = (
            f"--kv {self.spec.kv}: {family} is scored by whole rows, as with --kv recompute: "
            "its head or its attention is not one that a few rows can be asked of"
        )
        return {
            "attention_backend": "eager",
            "threads": torch.get_num_threads(),
            "kv_used": used,
            "max_tokens": self.spec.max_tokens,
            "warnings": (fallen,) if used != self.spec.kv else (),
            **self.moved.facts(),
        }

    def memory_parts(self) -> dict[str, int]:
        held = self.moved.nbytes()
        trained = 0 if self._trained is None else 4 * self._trained.size
        return {
            "weights": self._total_bytes + held["copy"],
            "kv_pool": 0,
            "adapter_slots": self._adapters.nbytes() if self._adapters else 0,
            "accumulated_state": held["accumulated_state"] + trained,
            "running_means": held["running_means"],
            "master": held["master"],
        }

    def work(self, batch: Batch, probes: Sequence[Probe], *then: Sequence[Probe]) -> dict[str, int]:
        every = (probes, *then)
        n, itemsize, together = sum(map(len, every)), self.dtype.itemsize, self.spec.batching == "paired"
        queries, kind = len({probe.direction for probe in probes}), probes[0].direction.kind
        matrices = [shape for shape in self.layout.values() if len(shape) == 2 and kind in FACTORED]
        factored = sum(out * inner for out, inner in matrices) * itemsize
        scoped = sum(w.numel() for w in self.moved.weights.values()) * itemsize
        dense = self.spec.lora == "dense"
        written = self.moved.written(self._workload, self.spec.weight_decay, queries)
        columns = sum(out for out, _ in matrices) * self.spec.rank * (2 if kind == "lowrank" else 1)
        sides = sum(len(groups(some)) for some in every) if together else n
        states = 0 if dense else sides * columns * itemsize + n * (scoped - factored)
        bytes_written = {
            "weight_bytes_written": written + ((n + len(every)) * scoped if dense else 0),
            "fold_bytes_written": factored * (2 if dense or self.moved.requantized else 1),
            "adapter_bytes_written": states,
        }
        if self._trained is not None:  # the updates, too, go into the adapter
            bytes_written = dict.fromkeys(bytes_written, 0) | {"adapter_bytes_written": states + written}
        return {**self._scored(batch, [len(some) for some in every]), **bytes_written, "host_syncs": len(then)}

    def _scored(self, batch: Batch, sizes: list[int]) -> dict[str, int]:
        """Forwards, rows, tokens, products with the head of rounds of so many states; with a reward, of the newest step."""
        n = sum(sizes)
        if self.spec.reward is not None:
            return self._answers.work(batch, n, self._scorer.vocabulary)
        together = Counter(sizes) if self.spec.batching == "paired" else {1: n}
        counts: Counter[str] = Counter()
        for of, times in together.items():
            for part in self._passes(batch, of):
                found = self._scorer.work(part.examples, self._form(part.examples))
                counts.update({name: times * of * count for name, count in found.items()}, forwards=times)
        return dict(counts)

    def infer(self, batch: Batch) -> int:
        self._scorer.model.set_attn_implementation("eager")
        for rows, lengths in self._answers.batches(batch):
            greedy(self._scorer.model, rows, self._task, len(rows), self.spec.max_tokens, exactly=max(lengths))
        return self._answers.tokens

    def _reward_losses(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        """Minus the mean reward under each probe. Rows stand probe by probe; where they do not all fit, one probe's at a time."""
        every, most = len(probes) * len(batch), self.spec.max_tokens
        fits = self.spec.batching == "paired" and rows_at_once(self._task, every, most) == every
        self._scorer.model.set_attn_implementation("eager")
        answers: list[list[tuple[int, ...]]] = []
        for part in [probes] if fits else [[probe] for probe in probes]:
            self._write(part)
            with phase("score"):
                found = greedy(self._scorer.model, [*batch] * len(part), self._task, len(part) * len(batch), most)
            answers += [found[start : start + len(batch)] for start in range(0, len(found), len(batch))]
        self._restore()
        self._answers = Answered.of(
            self._task, answers, every if fits else rows_at_once(self._task, len(batch), most), padded=True
        )
        with phase("host"):
            return reward_losses(self._task, batch, answers).to(self.device)

    def close(self) -> None:
        self.__dict__.clear()
        release()

    def _use(self, spec: RunSpec) -> None:
        self._workload = make_workload(spec)
        self._scorer.use(spec.variant)
        self.moved.keep_copy(spec.lora == "dense")
        logits = 1.0 if spec.variant == "every position" else scored_share(self._task)
        made, held = Made(logits, attended=self._task.max_tokens), self._total_bytes + self.moved.nbytes()["copy"]
        most = spec.max_tokens or room(self._source, self.dtype, self.device, made, held)
        self.spec = replace(spec, max_tokens=most)

    def _form(self, batch: Batch) -> str:
        """How `kv` has the batch scored (see OptionScorer)."""
        if self.spec.kv == "recompute":
            return "full"
        labels = labels_only(batch, self._task.objective) and self._scorer.label_rows
        return "labels" if labels else "tree" if self._scorer.packs else "full"

    def _passes(self, batch: Batch, probes: int) -> list[Pass]:
        """The forwards of so many states. Where rows are packed, attention still spreads them to the width of the longest."""

        def tokens(examples: Batch) -> int:
            return probes * places(examples, prompts=self.spec.kv == "shared" and one_token(examples))

        return passes(batch, self._task.objective, tokens, self.spec.max_tokens)

    def _losses(self, batch: Batch, probes: int) -> torch.Tensor:
        """Of the states written [probes]."""

        def loss(examples: Batch) -> torch.Tensor:
            scores = self._scores(examples, probes, self._form(examples))
            with phase("score"):
                return batch_loss(self._task.objective, scores, examples)

        return mean_loss(self._passes(batch, probes), loss)

    def _scores(self, batch: Batch, probes: int, form: str) -> torch.Tensor:
        """Option log-probs [probes, n_examples, most options] of the states written, in one forward."""
        with phase("score"):
            return self._scorer.option_logprobs(batch, probes, form)

    def _write_current(self) -> None:
        """Bring the adapters, or the weights, to the current state."""
        if self._trained is not None:
            self._current.states = self._states(self._trained, [None])
            return
        if len(self.moved.state.pending) > 1:
            self.moved.fold()
        self._write([Probe(pending.last, 0.0) for pending in self.moved.state.pending.values()])

    def _write(self, probes: Sequence[Probe]) -> None:
        """Bring the weights, or the adapters, to the states of the probes; none: the weights as they are."""
        if not probes:
            return
        with phase("perturb"):
            if self.spec.lora == "dense":
                (probe,) = probes
                self.moved.write(probe)
                return
            if self._trained is not None:
                self._adapters = self._current.states = self._states(self._trained, probes)
                return
            drawn = {probe.direction: self.moved.draw(probe.direction) for probe in probes}
            held = self.moved.state.factor(probes[0].direction.epoch)
            with mark("state_write"):
                fused = self.spec.lora == "fused"
                self._adapters = self._current.states = AdapterStates(probes, drawn, held, self.moved.weights, fused)

    def _states(self, trained: Adapter, probes: Sequence[Probe | None]) -> TrainedStates:
        """A trained adapter under probes; None: as it is."""
        states = [self.moved.at(FLAT, probe) for probe in probes]
        with mark("state_write"):
            return TrainedStates(states, trained, self.dtype, self.spec.lora == "fused")

    def _restore(self) -> None:
        self._current.states = None
        if self.spec.lora == "dense":
            with phase("perturb"):
                self.moved.back()
