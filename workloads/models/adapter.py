"""The adapter that `--scope adapter` trains: A and B beside some linear layers, W + alpha / rank * B A, while every W stays.

Source: LoRA, arXiv 2106.09685; trained with zeroth-order steps in MeZO, arXiv 2305.17333: rank 8, alpha 16, at the attention's
queries and values. A starts uniform within 1/sqrt(in) and B at 0, so that training starts from the model as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from bench.config import RunSpec
from bench.data import ModelSource
from bench.errors import UsageError
from workloads.models.scope import Shapes, Trained, layout
from workloads.models.weights import skeleton
from workloads.seeds import derive_seed

SCOPE, EVERY, FLAT = "adapter", "all", "adapter"
Pair = tuple[torch.Tensor, torch.Tensor]
"""A [.., rank, in] and B [.., out, rank]."""


@dataclass(frozen=True)
class Adapter:
    """Trained as one vector: a direction is one draw, an update one addition. In it stand all A, then all B, in layout order.

    targets     name -> shape [out, in] of the weights it stands beside
    """

    targets: Mapping[str, tuple[int, ...]]
    rank: int
    alpha: float

    @classmethod
    def of(cls, model: nn.Module | ModelSource, spec: RunSpec) -> Adapter:
        """UsageError where the model has no linear layers of the names wanted."""
        module = model if isinstance(model, nn.Module) else skeleton(model)
        inside, wanted = layout(module, "lora"), [name.strip() for name in spec.adapter_targets.split(",")]
        kinds = sorted({kind(name) for name in inside})
        unknown = [name for name in wanted if name not in (*kinds, EVERY)]
        if unknown:
            raise UsageError(
                f"--adapter-targets {spec.adapter_targets}: {type(module).__name__} has no linear layer {unknown[0]!r} in its "
                f"blocks; choose among {', '.join(kinds)}, or {EVERY}"
            )
        targets = {name: shape for name, shape in inside.items() if EVERY in wanted or kind(name) in wanted}
        return cls(targets, spec.adapter_rank, spec.adapter_alpha)

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def size(self) -> int:
        """Trained numbers."""
        return self.rank * sum(out + inner for out, inner in self.targets.values())

    @property
    def layout(self) -> Shapes:
        """Of what is trained: one row."""
        return {FLAT: (1, self.size)}

    @property
    def split(self) -> int:
        """Where the first B begins."""
        return self.rank * sum(inner for _, inner in self.targets.values())

    def initial(self, seed: int, device: torch.device | str) -> dict[str, torch.Tensor]:
        """The same on every device: drawn on the CPU."""
        generator = torch.Generator().manual_seed(derive_seed("adapter", seed))
        drawn = torch.rand(self.split, generator=generator) * 2 - 1
        bounds = torch.cat([torch.full((self.rank * inner,), 1 / math.sqrt(inner)) for _, inner in self.targets.values()])
        flat = torch.zeros(1, self.size)
        flat[0, : self.split] = drawn * bounds
        return {FLAT: flat.to(device)}

    def pairs(self, flat: torch.Tensor) -> dict[str, Pair]:
        """Target -> views into vectors [.., size]."""
        found, at_a, at_b = {}, 0, self.split
        for name, (out, inner) in self.targets.items():
            a, b = (flat[..., start : start + size * self.rank] for start, size in ((at_a, inner), (at_b, out)))
            found[name] = a.unflatten(-1, (self.rank, inner)), b.unflatten(-1, (out, self.rank))
            at_a, at_b = at_a + inner * self.rank, at_b + out * self.rank
        return found

    def named(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A and B of every target [rank, in], [out, rank], by the names they have in PEFT."""
        found: dict[str, torch.Tensor] = {}
        for name, (a, b) in self.pairs(values[FLAT][0]).items():
            path = name.removesuffix(".weight")
            found |= {f"{path}.lora_A.weight": a.contiguous(), f"{path}.lora_B.weight": b.contiguous()}
        return found

    def change(self, named: Mapping[str, torch.Tensor], target: str) -> torch.Tensor:
        """What it adds to a weight [out, in], from what `named` gives."""
        path = target.removesuffix(".weight")
        return named[f"{path}.lora_B.weight"] @ named[f"{path}.lora_A.weight"] * self.scale

    def trained(self, source: ModelSource) -> Trained:
        kinds = [f"adapter of {kind(name)}" for name in self.targets]
        whole = sum(map(math.prod, layout(source, "full").values()))
        return Trained(self.size, whole, {name: kinds.count(name) for name in dict.fromkeys(kinds)}, {})


def reached(model: nn.Module | ModelSource, spec: RunSpec) -> Shapes:
    """Name -> shape of the model's own parameters that a probe of a spec changes the effect of."""
    return dict(Adapter.of(model, spec).targets) if spec.scope == SCOPE else layout(model, spec.scope)


def kind(name: str) -> str:
    """Which linear layer of a block a weight belongs to."""
    return name.split(".")[-2]
