"""The official loop as an executor: upstream's own random stream and quirks, or shared directions through the same rewriting.

With shared directions (the reference path, and all of factorized, which upstream has not) the numbers come from
`workloads.directions` and the direction that moves the weights is the one that was measured; perturbing, scoring and updating
are the official loop's. Factorized is then LoZO's step at high rank and interval 1, scaled by 1/sqrt(rank), without the
resampling quirk, under which no update would move along the direction that was measured.
Scoring leaves the residue of its rewriting in the weights, as upstream's does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from baselines.official.loop import LozoLoop, MezoLoop, Noise, Rewriting
from baselines.official.loss import option_scores
from baselines.official.saving import restore, save, state_checksum
from baselines.official.upstream import ORIGINS, UpstreamLoop
from bench.api import Direction, Probe, Snapshot, Update, Workload, mark, phase
from bench.config import RunSpec
from bench.data import Batch, ModelSource
from bench.registry import check, workload_class
from workloads.directions import draw
from workloads.models.generate import greedy
from workloads.models.memory import release
from workloads.models.room import Made, room
from workloads.models.scope import layout, transposed
from workloads.models.weights import load_model
from workloads.steps import core_step
from workloads.tasks.collate import option_rows, places
from workloads.tasks.loss import ragged
from workloads.tasks.passes import Pass, passes, split

if TYPE_CHECKING:
    from bench.data import TaskData

UPSTREAM_SEED = 42
"""What upstream seeds numpy with before the first step, whatever the run's seed: that one only picks the data."""


class OfficialExecutor:
    """Hugging Face eager attention, padded rows, one forward per probe, four rewrites of the weights per step."""

    name = "official"
    leaves_residue = True
    """+eps, -2 eps, +eps does not come back to the bit, so a check before step 0 has to put the weights back."""

    def load(self, spec: RunSpec, source: ModelSource, task: TaskData) -> None:
        check(spec)
        self._task, self._pad_id = task, task.pad_id
        self._kind, self._upstream = workload_class(spec.workload).kind, workload_class(spec.workload).upstream
        self.model: Any = load_model(source, getattr(torch, spec.dtype), spec.device)
        _mark_head(self.model)
        made, held = Made(logits=1.0, attended=task.max_tokens), self._weight_bytes()
        self.spec = replace(spec, max_tokens=spec.max_tokens or room(source, getattr(torch, spec.dtype), spec.device, made, held))
        self._layout, self._turned = layout(self.model, spec.scope), transposed(self.model)
        self.weights = Rewriting(self.model, eps=spec.eps, scope=spec.scope)
        self.loop = self._loop() if spec.directions == "upstream" else None
        self._seeds: dict[int, int] = {}

    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        """Shared directions: theta moves from probe to probe of a direction, and back at its end."""
        rows = self._step_rows(batch)
        return self._rewrite(probes, lambda: self.weights.loss(rows).float())

    def _rewrite(self, probes: Sequence[Probe], loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        losses = []
        for direction, group in groupby(probes, key=lambda probe: probe.direction):
            at = 0.0
            for probe in group:
                self._move(direction, probe.shift - at)
                at = probe.shift
                losses.append(loss())
            self._move(direction, -at)
        return torch.stack(losses)

    def apply(self, update: Update) -> None:
        """theta += coefficient * Z in the model's dtype, each coefficient read back to the host as upstream does."""
        if update.decay:
            self.weights.decay(update.decay)
        with phase("update"):
            for direction, coefficient in update.terms:
                self.weights.update(self._noise(direction), 1.0, -coefficient.item())

    def step(self, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
        if self.loop is None:
            return core_step(self, workload, step, batch)
        record = self.loop.step(self._step_rows(batch))
        self._seeds[step] = record.seed
        return torch.tensor([record.loss_plus, record.loss_minus])

    def switch(self, spec: RunSpec) -> None:
        """There is one point only: what the entry allows is what is loaded."""
        check(spec)

    def replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        if self.loop is not None:
            self._seeds[step] = self.loop.replay(losses).seed
            return
        known = iter(losses.to(self.spec.device))
        found = self._rewrite(workload.plan(step), lambda: next(known))
        if more := workload.then(step, found):
            found = torch.cat([found, self._rewrite(more, lambda: next(known))])
        self.apply(workload.update(step, found))

    def snapshot(self) -> Snapshot:
        return save(self.weights.parameters, self.loop)

    def restore(self, snapshot: Snapshot) -> None:
        restore(snapshot, self.weights.parameters, self.loop)

    def checksum(self) -> str:
        return state_checksum(self.weights.parameters, self.loop)

    def seed(self, step: int) -> int:
        return self._seeds[step] if self.loop is not None else self.spec.seed

    def evaluate(self, examples: Batch) -> torch.Tensor:
        size, most = self.spec.batch_size, self.spec.max_tokens
        chunks = [examples[start : start + size] for start in range(0, len(examples), size)]
        parts = [option_scores(self.model, self._rows(part)) for chunk in chunks for part in split(chunk, places, most)]
        options = torch.tensor([len(example.options) for example in examples])
        return ragged(torch.cat(parts).float().cpu(), options)

    def generate(self, examples: Batch) -> list[tuple[int, ...]]:
        return greedy(self.model, examples, self._task, self.spec.batch_size, self.spec.max_tokens)

    def parameters(self) -> dict[str, torch.Tensor]:
        values = {name: parameter.detach().float().cpu().clone() for name, parameter in self.weights.parameters}
        return {name: value.t() if name in self._turned else value for name, value in values.items()}

    def details(self) -> dict[str, Any]:
        watched = self.weights if self.loop is None else self.loop
        found: dict[str, Any] = {
            "attention_backend": "eager",
            "threads": torch.get_num_threads(),
            "max_tokens": self.spec.max_tokens,
            "kv_used": "recompute",
            "absorbed_fraction": watched.absorption.fraction(),
            "resample_quirk": self.loop is not None and self._kind == "lowrank",
            "numpy_seed": UPSTREAM_SEED if self.loop is not None else None,
        }
        if isinstance(self.loop, UpstreamLoop):
            found |= {"upstream_repository": self.loop.origin.repository, "upstream_commit": self.loop.commit}
        return found

    def memory_parts(self) -> dict[str, int]:
        beside = ("kv_pool", "adapter_slots", "accumulated_state", "running_means", "master")
        return {"weights": self._weight_bytes()} | dict.fromkeys(beside, 0)

    def work(self, batch: Batch, probes: Sequence[Probe], *then: Sequence[Probe]) -> dict[str, int]:
        parts, directions, n = self._passes(batch), len({probe.direction for probe in probes}), len(probes) + sum(map(len, then))
        scored = sum(places(part.examples) for part in parts) * n
        rewrites = n + (1 + len(then) + 1) * directions  # one per probe; per direction one back from each round, and the update
        scoped = sum(p.numel() * p.element_size() for _, p in self.weights.parameters)
        matrices = sum(p.numel() * p.element_size() for _, p in self.weights.parameters if p.ndim == 2)
        return {
            "forwards": len(parts) * n,
            "rows": sum(len(example.options) for example in batch) * n,
            "tokens_scored": scored,
            "tokens_real": sum(len(e.prompt) + len(option) for e in batch for option in e.options) * n,
            "head_rows": scored * self.model.get_output_embeddings().weight.size(0),
            "weight_bytes_written": rewrites * scoped + (matrices if self.spec.weight_decay else 0),
            "fold_bytes_written": 0,
            "adapter_bytes_written": 0,
            # the published loop reads the losses apart from the gradient
            "host_syncs": directions + len(then) + isinstance(self.loop, UpstreamLoop),
        }

    def close(self) -> None:
        self.__dict__.clear()
        release()

    def _loop(self) -> LozoLoop | MezoLoop | UpstreamLoop:
        spec = self.spec
        common: dict[str, Any] = {"eps": spec.eps, "learning_rate": spec.learning_rate, "scope": spec.scope}
        if spec.upstream is not None:
            np.random.seed(UPSTREAM_SEED)  # their methods draw from numpy's global stream
            settings = SimpleNamespace(
                zo_eps=spec.eps, learning_rate=spec.learning_rate, rank_r=spec.rank, step_interval=spec.interval
            )
            return UpstreamLoop(spec.upstream, ORIGINS[str(self._upstream)], self.model, settings, spec.scope)
        rng = np.random.RandomState(UPSTREAM_SEED)
        if self._kind == "dense":
            return MezoLoop(self.model, **common, rng=rng)
        return LozoLoop(self.model, **common, rank=spec.rank, interval=spec.interval, rng=rng)

    def _weight_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    def _passes(self, batch: Batch) -> list[Pass]:
        return passes(batch, self._task.objective, places, self.spec.max_tokens)

    def _step_rows(self, batch: Batch) -> Any:
        """As `step_loss` takes them."""
        found = [(part.share, self._rows(part.examples)) for part in self._passes(batch)]
        return found if len(found) > 1 else found[0][1]

    def _rows(self, batch: Batch) -> dict[str, Any]:
        with phase("host"):
            rows = option_rows(batch, self._pad_id) | {"objective": self._task.objective}
            return rows | {name: rows[name].to(self.spec.device) for name in ("input_ids", "attention_mask")}

    def _move(self, direction: Direction, shift: float) -> None:
        with phase("perturb"):
            self.weights.perturb(self._noise(direction), shift / self.spec.eps)

    def _noise(self, direction: Direction) -> Noise:
        """A pass over shared directions, drawn anew for every pass as upstream does."""
        drawn = draw(direction, self._layout, self.spec.device, getattr(torch, self.spec.dtype))

        def noise(name: str, parameter: torch.Tensor) -> torch.Tensor:
            z = (drawn.u(name) * drawn.scale) @ drawn.vt(name) if drawn.factored(name) else drawn.noise(name)
            return z.t() if name in self._turned else z

        return noise


def _mark_head(model: Any) -> None:
    """Profilers tell the LM head, the largest product of a step with full logits, from the other layers by this range."""
    head, ranges = model.get_output_embeddings(), []
    head.register_forward_pre_hook(lambda *_: ranges.append(mark("head_logits").__enter__()))
    head.register_forward_hook(lambda *_: ranges.pop().__exit__(None, None, None))
