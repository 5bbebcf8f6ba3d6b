"""The float64 loop for an adapter that is trained: W + alpha / rank * B A multiplied out, A and B moved as one vector."""

from __future__ import annotations

from typing import Any

import torch
from plain_loop import PlainLoop

from bench.config import RunSpec
from bench.data import Batch, ModelSource
from workloads.directions import directions
from workloads.models.adapter import Adapter
from workloads.models.scope import views
from workloads.models.weights import load_model


class AdapterLoop(PlainLoop):
    """`plain_methods` moves `weights`, which holds one vector [1, size]; each loss begins with multiplying it out."""

    def __init__(self, source: ModelSource, spec: RunSpec) -> None:
        self.spec, self.model = spec, load_model(source, torch.float32, "cpu").double()
        names = spec.adapter_targets.split(",")
        self.targets = {n: w for n, w in views(self.model, "lora").items() if names == ["all"] or n.split(".")[-2] in names}
        self.base = {name: weight.clone() for name, weight in self.targets.items()}
        initial = Adapter.of(self.model, spec).initial(spec.seed, "cpu")
        self.weights = {name: value.double() for name, value in initial.items()}
        self.start = {name: value.clone() for name, value in self.weights.items()}
        self.steps: list[dict[str, torch.Tensor]] = []
        self.held: dict[str, Any] = {}

    def z(self, step: int, query: int) -> dict[str, torch.Tensor]:
        layout = {name: tuple(value.shape) for name, value in self.weights.items()}
        drawn = directions(self.spec.seed, step, layout, "cpu", kind="dense", query=query)
        return {name: drawn.noise(name).double() for name in layout}

    def factors(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """First A of every target, then B of every target."""
        found, at, rank = {}, 0, self.spec.adapter_rank
        for side, letter in ((1, "A"), (0, "B")):
            for name, weight in self.base.items():
                size = weight.size(side) * rank
                shape = (rank, weight.size(1)) if letter == "A" else (weight.size(0), rank)
                found[f"{name.removesuffix('.weight')}.lora_{letter}.weight"] = flat[0, at : at + size].view(shape)
                at += size
        assert at == flat.numel()
        return found

    def loss(self, batch: Batch) -> torch.Tensor:
        (flat,) = self.weights.values()
        found, scale = self.factors(flat), self.spec.adapter_alpha / self.spec.adapter_rank
        for name, weight in self.targets.items():
            path = name.removesuffix(".weight")
            weight.copy_(self.base[name] + scale * found[f"{path}.lora_B.weight"] @ found[f"{path}.lora_A.weight"])
        return super().loss(batch)

    def change_error(self, found: dict[str, torch.Tensor]) -> float:
        """||d - d here|| / ||d here|| of how far A and B moved."""
        (flat,), (start,) = self.weights.values(), self.start.values()
        wanted, begun = self.factors(flat), self.factors(start)
        assert found.keys() == wanted.keys()
        error = sum(float((found[name].double() - value).square().sum()) for name, value in wanted.items())
        return (error / sum(float((value - begun[name]).square().sum()) for name, value in wanted.items())) ** 0.5
