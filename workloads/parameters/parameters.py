"""What zeroth-order training moves: scoped weights, the updates pending since the last fold, running means of the steps, and a
copy for dense states.

One object for every executor that keeps its state this way. The executor says how a state is brought to the model and scored;
drawing, folding, applying, replaying and saving are the same wherever the weights live. Nothing is read back to the host.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.api import FACTORED, Direction, Means, Probe, Snapshot, Update, Workload, mark, phase
from workloads.directions import Drawn, Layout
from workloads.parameters.accumulated import AccumulatedState, Epoch
from workloads.parameters.checksum import Sums
from workloads.parameters.dense import DenseStates
from workloads.parameters.means import RunningMeans, weighted
from workloads.parameters.requantized import Requantized
from workloads.parameters.rounding import add_
from workloads.parameters.shards import Shards, cut_snapshot, drawn_here, part_of
from workloads.parameters.snapshot import restore, save, state_checksum, state_sums


class Parameters:
    """weights: canonical name -> view into the live model, in the layout's order; device: where directions are drawn; shards:
    where several processes share the model, the parts that the weights here are of; requantized: where the model's are in fewer
    bits, what they are made from, which then is the weights here."""

    def __init__(
        self,
        weights: dict[str, torch.Tensor],
        layout: Layout,
        device: torch.device,
        dtype: torch.dtype,
        shards: Shards | None = None,
        requantized: Requantized | None = None,
    ) -> None:
        self.layout: Layout = layout if shards is None else shards.layout
        self.weights, self.device, self.dtype, self.shards = weights, device, dtype, shards
        self.state, self.means = AccumulatedState(self.layout, device, dtype, shards), RunningMeans(self.layout, device)
        self.dense: DenseStates | None = None
        self.requantized = requantized
        self._drawn: dict[Direction, Drawn] = {}

    def keep_copy(self, wanted: bool) -> None:
        """Dense states rewrite the weights, so they need a copy to come back to; adapters do not."""
        if not wanted:
            self.dense = None
        elif self.dense is None:
            self.dense = DenseStates(self.weights)

    def draw(self, direction: Direction) -> Drawn:
        """The numbers of a direction; the probes of a query and its update share one draw."""
        if direction not in self._drawn:
            with mark("direction_generation"):
                self._drawn[direction] = drawn_here(direction, self.layout, self.device, self.dtype, self.shards)
        return self._drawn[direction]

    @torch.inference_mode()
    def fold(self, current: Collection[Epoch] = ()) -> None:
        """Add to the weights what the next probes, which are of the epochs `current`, do not share.

        Probes of several epochs share nothing.
        """
        stale = self.state.stale(current if len(current) == 1 else ())
        if stale:
            with phase("fold"):
                self.state.fold(self.weights, stale)
                if self.dense is not None:
                    self.dense.sync()
                if self.requantized is not None:
                    self.requantized.refresh()

    @torch.inference_mode()
    def apply(self, update: Update) -> None:
        """Decay, then move: U V^T goes into the accumulated state, Gaussian noise into the weights."""
        with phase("update"):
            if update.decay:
                self._decay(update)
                if self.requantized is not None:
                    self.requantized.refresh()
            if update.means is None:
                self._move(update)
            else:
                self._move_by_means(update, update.means)
            self._drawn.clear()

    def _decay(self, update: Update) -> None:
        """Matrices times 1 - decay, what is pending of them included: every one of them is rewritten."""
        self.state.scale(1 - update.decay)
        direction, _ = update.terms[0]
        for name, weight in self.weights.items():
            if weight.ndim == 2:
                kept = weight if self.dense is None else self.dense.base[name]
                self._add(name, kept.float() * -update.decay, direction.seed, direction.step, "decay", name)

    def _move(self, update: Update) -> None:
        for direction, coefficient in update.terms:
            drawn = self.draw(direction)
            if direction.factored:
                self.state.add(drawn, coefficient)
            for name in self.weights:
                if not drawn.factored(name):
                    delta = drawn.noise(name).float().mul_(coefficient)
                    self._add(name, delta, direction.seed, direction.step, direction.query, name)

    def _move_by_means(self, update: Update, means: Means) -> None:
        terms = [(self.draw(direction), coefficient) for direction, coefficient in update.terms]
        newest = terms[-1][0]
        direction = newest.direction
        if direction.factored:
            moved = replace(newest, u_flat=self.means.factor(means, terms))
            self.state.add(moved, torch.full((), -means.rate, device=self.device))
        elif means.window:
            redrawn = self.means.remember(means, update.terms)
            terms = [(self.draw(past), coefficient * -means.rate) for past, coefficient in redrawn]
        for name in self.weights:
            if not newest.factored(name):
                delta = weighted(name, terms) if means.window else self.means.delta(name, means, terms)
                self._add(name, delta, direction.seed, direction.step, "means", name)

    def _add(self, name: str, delta: torch.Tensor, *seed: object) -> None:
        """Into the weights, and into the copy that dense states come back to."""
        weight = self.weights[name]
        kept = weight if self.dense is None else self.dense.base[name]
        add_(kept, delta, *seed, shard=part_of(self.shards, name))
        if kept is not weight:
            weight.copy_(kept)

    @torch.inference_mode()
    def replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        """Do again what a step did, without scoring: fold what its probes made stale, then move. Losses [n_probes]."""
        self.fold(epochs(workload.plan(step)))
        self.apply(workload.update(step, losses))

    @torch.inference_mode()
    def write(self, probe: Probe | None) -> None:
        """Rewrite the weights to one probe's state, or to the current state for None; `keep_copy` has to have been asked for."""
        assert self.dense is not None
        if probe is None and not self.state.pending:
            self.dense.restore()
            return
        pending, drawn = self.state.values(), None if probe is None else self.draw(probe.direction)

        def delta(name: str) -> torch.Tensor | None:
            held = pending.delta(name)
            if drawn is None or probe is None:
                return held
            moved = drawn.delta(name).mul_(probe.shift)
            return moved if held is None else moved.add_(held)

        self.dense.write(delta)

    @torch.inference_mode()
    def at(self, name: str, probe: Probe | None) -> torch.Tensor:
        """A tensor without factors in one state, in a tensor of its own; None: the current state."""
        weight = self.weights[name]
        return weight.clone() if probe is None else torch.add(weight, self.draw(probe.direction).noise(name), alpha=probe.shift)

    def back(self) -> None:
        """The weights as they were before `write`, bit for bit."""
        if self.dense is not None:
            self.dense.restore()

    @torch.inference_mode()
    def values(self) -> dict[str, torch.Tensor]:
        """Scoped parameters with everything pending: canonical name -> float32 copy on the CPU."""
        pending, found = self.state.values(), {}
        for name, weight in self.weights.items():
            delta, value = pending.delta(name), weight.float()
            found[name] = (value if delta is None else value + delta).cpu().clone()
        return found

    def snapshot(self) -> Snapshot:
        return save(self.weights, self.state, self.means)

    @torch.inference_mode()
    def restore(self, snapshot: Snapshot) -> None:
        """Put back what a snapshot of the whole model has of what is here."""
        snapshot = snapshot if self.shards is None else cut_snapshot(snapshot, self.shards)
        restore(snapshot, self.weights, self.state, self.means, self.dense)
        if self.requantized is not None:
            self.requantized.begin_again()

    def checksum(self) -> str:
        return state_checksum(self.weights, self.state, self.means)

    def sums(self) -> Sums:
        """What the parts here add to the checksum of the whole; `joined` adds them up."""
        assert self.shards is not None
        return state_sums(self.weights, self.state, self.shards)

    def facts(self) -> dict[str, Any]:
        return self.state.facts() | ({} if self.requantized is None else self.requantized.facts())

    def nbytes(self) -> dict[str, int]:
        """accumulated_state, running_means, master: what weights in fewer bits are made from, and copy: what dense states keep
        beside the weights."""
        held = {"accumulated_state": self.state.nbytes(), "running_means": self.means.nbytes()}
        held["master"] = 0 if self.requantized is None else self.requantized.nbytes()
        return held | {"copy": self.dense.nbytes() if self.dense else 0}

    def written(self, workload: Workload, weight_decay: float, queries: int) -> int:
        """Bytes that the update of a step writes into the weights, folds apart: Gaussian updates, one for each query or one
        along a running mean, and decay; twice where there is a copy."""
        copies, factored = (2 if self.dense else 1), workload.kind in FACTORED
        matrices = sum(w.numel() * w.element_size() for w in self.weights.values() if w.ndim == 2)
        others = sum(w.numel() * w.element_size() for w in self.weights.values() if w.ndim != 2)
        gaussian = (others if factored else others + matrices) * (1 if workload.keeps else queries)
        return copies * (gaussian + (matrices if weight_decay else 0))


def epochs(probes: Sequence[Probe]) -> set[Epoch]:
    """What the V of the probes are drawn from."""
    return {probe.direction.epoch for probe in probes}
