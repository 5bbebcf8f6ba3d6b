"""What zeroth-order training moves: scoped weights, the updates pending since the last fold, and a copy for dense states.

One object for every executor that keeps its state this way. The executor says how a state is brought to the model and scored;
drawing, folding, applying, replaying and saving are the same wherever the weights live. Nothing is read back to the host.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from bench.api import Direction, Probe, Snapshot, Update, Workload, mark, phase
from workloads.directions import Drawn, Layout, draw
from workloads.parameters.accumulated import AccumulatedState, Epoch
from workloads.parameters.dense import DenseStates
from workloads.parameters.rounding import add_
from workloads.parameters.snapshot import restore, save, state_checksum


class Parameters:
    """weights: canonical name -> view into the live model, in the layout's order; device: where directions are drawn."""

    def __init__(self, weights: dict[str, torch.Tensor], layout: Layout, device: torch.device, dtype: torch.dtype) -> None:
        self.weights, self.layout, self.device, self.dtype = weights, layout, device, dtype
        self.state = AccumulatedState(layout, device, dtype)
        self.dense: DenseStates | None = None
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
                self._drawn[direction] = draw(direction, self.layout, self.device, self.dtype)
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

    @torch.inference_mode()
    def apply(self, update: Update) -> None:
        """theta += coefficient * Z for every term: U V^T into the accumulated state, Gaussian noise into the weights."""
        with phase("update"):
            for direction, coefficient in update.terms:
                drawn = self.draw(direction)
                if direction.factored:
                    self.state.add(drawn, coefficient)
                for name, weight in self.weights.items():
                    if not drawn.factored(name):
                        kept = weight if self.dense is None else self.dense.base[name]
                        delta = drawn.noise(name).float().mul_(coefficient)
                        add_(kept, delta, direction.seed, direction.step, direction.query, name)
                        if kept is not weight:
                            weight.copy_(kept)
            self._drawn.clear()

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
        return save(self.weights, self.state)

    @torch.inference_mode()
    def restore(self, snapshot: Snapshot) -> None:
        restore(snapshot, self.weights, self.state, self.dense)

    def checksum(self) -> str:
        return state_checksum(self.weights, self.state)

    def facts(self) -> dict[str, Any]:
        return self.state.facts()

    def nbytes(self) -> dict[str, int]:
        """accumulated_state, and copy: what dense states keep beside the weights."""
        return {"accumulated_state": self.state.nbytes(), "copy": self.dense.nbytes() if self.dense else 0}


def epochs(probes: Sequence[Probe]) -> set[Epoch]:
    """What the V of the probes are drawn from."""
    return {probe.direction.epoch for probe in probes}
