"""A zeroth-order loop written out in float64, one prompt at a time: what every cell is compared with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from bench.config import RunSpec
from bench.data import Batch, ModelSource
from workloads.directions import directions
from workloads.models.weights import layout, load_model

KINDS = {"lozo": "lowrank", "mezo": "dense", "factorized": "factorized"}
RATES = {"lozo": 1e-4, "mezo": 1e-5, "factorized": 1e-5}


class PlainLoop:
    """W +- eps Z, the difference of the losses, a step along Z; every number in double precision."""

    def __init__(self, source: ModelSource, spec: RunSpec) -> None:
        self.spec, self.model = spec, load_model(source, torch.float32, "cpu").double()
        self.layout = layout(self.model, spec.scope)
        self.weights = {name: self.model.get_parameter(name) for name in self.layout}
        self.start = {name: weight.clone() for name, weight in self.weights.items()}

    def z(self, step: int, query: int) -> dict[str, torch.Tensor]:
        s: Any = self.spec
        options = {"kind": KINDS[s.workload], "rank": s.rank, "interval": s.interval, "query": query}
        drawn = directions(s.seed, step, self.layout, "cpu", **options)
        found = {}
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
        scores = []
        for example in batch:
            logits = self.model(torch.tensor([example.prompt])).logits[0, -1]
            scores.append(torch.stack([logits[option[0]] for option in example.options]))
        return F.cross_entropy(torch.stack(scores), torch.tensor([example.label for example in batch]))

    @torch.no_grad()
    def step(self, number: int, batch: Batch) -> torch.Tensor:
        """Losses [2 * queries]: plus and minus of each query."""
        s, losses, moves = self.spec, [], []
        for query in range(s.queries):
            z = self.z(number, query)
            self.add(z, s.eps)
            plus = self.loss(batch)
            self.add(z, -2 * s.eps)
            minus = self.loss(batch)
            self.add(z, s.eps)
            losses += [plus, minus]
            moves.append((z, (plus - minus).item() / (2 * s.eps)))
        for z, gradient in moves:
            self.add(z, -s.learning_rate * gradient / s.queries)
        return torch.stack(losses)

    def change_error(self, found: dict[str, torch.Tensor]) -> float:
        """||dW - dW here|| / ||dW here|| over all scoped weights."""
        error = sum(float((found[name].double() - weight).square().sum()) for name, weight in self.weights.items())
        size = sum(float((weight - self.start[name]).square().sum()) for name, weight in self.weights.items())
        return (error / size) ** 0.5


def tiny_spec(workload: str, executor: str, **changes: object) -> RunSpec:
    """Shared directions; the executor's own features unless changed."""
    dense = workload == "mezo" or executor == "official"
    features = {"batching": "sequential" if dense else "paired", "lora": "dense" if dense else "fused"}
    features |= {"kv": "recompute" if executor == "official" else "shared", "directions": "shared"}
    features["loop"] = "resident" if executor == "vllm" else "requests"
    method = {"rank": 16 if workload == "factorized" else 2, "interval": 4, "learning_rate": RATES[workload], "batch_size": 8}
    names = {"model": "tiny", "weights": "random", "task": "sst2", "dtype": "float32", "device": "cpu"}
    fields: Any = {"workload": workload, "executor": executor, **names, **features, **method, **changes}
    return RunSpec(**fields)
