"""A zeroth-order loop written out in float64, one prompt at a time: what every cell is compared with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from plain_methods import KINDS, METHODS, RATES, rate
from transformers.pytorch_utils import Conv1D

from bench.config import RunSpec
from bench.data import Batch, ModelSource, minibatches
from workloads.directions import Drawn, directions
from workloads.models.scope import layout
from workloads.models.weights import load_model


class PlainLoop:
    """The weights and what is done with them, every number in double precision; `plain_methods` has the algorithms."""

    def __init__(self, source: ModelSource, spec: RunSpec) -> None:
        self.spec, self.model = spec, load_model(source, torch.float32, "cpu").double()
        self.layout = layout(self.model, spec.scope)
        stored = {name: self.model.get_parameter(name).data for name in self.layout}
        self.weights = {name: weight.T if self._is_conv1d(name) else weight for name, weight in stored.items()}
        self.start = {name: weight.clone() for name, weight in self.weights.items()}
        self.steps: list[dict[str, torch.Tensor]] = []
        self.held: dict[str, Any] = {}

    def _is_conv1d(self, name: str) -> bool:
        """GPT-2 keeps these matrices as [in, out]."""
        return name.endswith(".weight") and isinstance(self.model.get_submodule(name.removesuffix(".weight")), Conv1D)

    def draw(self, step: int, query: int) -> Drawn:
        s: Any = self.spec
        options = {"kind": KINDS[s.workload], "rank": s.rank, "interval": s.interval, "query": query}
        return directions(s.seed, step, self.layout, "cpu", **options)

    def z(self, step: int, query: int) -> dict[str, torch.Tensor]:
        drawn, found = self.draw(step, query), {}
        for name in self.layout:
            if drawn.factored(name):
                found[name] = drawn.scale * drawn.u(name).double() @ drawn.v(name).double().T
            else:
                found[name] = drawn.noise(name).double()
        return found

    def add(self, z: dict[str, torch.Tensor], amount: float) -> None:
        for name, weight in self.weights.items():
            weight += amount * z[name]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean over the minibatches of a step."""
        return torch.stack([self._loss(part) for part in minibatches(batch)]).mean()

    def _loss(self, batch: Batch) -> torch.Tensor:
        scores = []
        for example in batch:
            logits = self.model(torch.tensor([example.prompt])).logits[0, -1]
            scores.append(torch.stack([logits[option[0]] for option in example.options]))
        return F.cross_entropy(torch.stack(scores), torch.tensor([example.label for example in batch]))

    @torch.no_grad()
    def step(self, number: int, batch: Batch) -> torch.Tensor:
        """Losses [n_probes]; then matrices decay and the weights move."""
        before = {name: weight.clone() for name, weight in self.weights.items()}
        losses = METHODS[self.spec.workload](self, number, batch)
        for name, weight in self.weights.items():
            if weight.ndim == 2:
                weight -= rate(self, number) * self.spec.weight_decay * before[name]
        return torch.stack(losses)

    def change_error(self, found: dict[str, torch.Tensor]) -> float:
        """||dW - dW here|| / ||dW here|| over all scoped weights."""
        error = sum(float((found[name].double() - weight).square().sum()) for name, weight in self.weights.items())
        size = sum(float((weight - self.start[name]).square().sum()) for name, weight in self.weights.items())
        return (error / size) ** 0.5


def tiny_spec(workload: str, executor: str, **changes: object) -> RunSpec:
    """Shared directions; the executor's own features unless changed."""
    kind = KINDS[workload]
    dense = (kind == "dense" and changes.get("scope") != "adapter") or executor == "official"
    features = {"batching": "sequential" if dense else "paired", "lora": "dense" if dense else "fused"}
    features |= {"kv": "recompute" if executor == "official" else "shared", "directions": "shared"}
    features["loop"] = "resident" if executor == "vllm" else "requests"
    method = {"rank": 16 if kind == "factorized" else 2, "interval": 4, "learning_rate": RATES[workload], "batch_size": 8}
    names = {"model": "tiny", "weights": "random", "task": "sst2", "dtype": "float32", "device": "cpu"}
    fields: Any = {"workload": workload, "executor": executor, **names, **features, **method, **changes}
    return RunSpec(**fields)
