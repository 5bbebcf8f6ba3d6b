"""What a scope moves: the canonical layout of a model's parameters, and live views of them in those shapes.

A matrix's shape is [out, in] whichever way it is stored: GPT-2's Conv1D keeps the transpose. Directions, adapters and folds then
mean the same for every family.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from bench.data import ModelSource
from bench.errors import UsageError
from workloads.models.weights import skeleton

Shapes = dict[str, tuple[int, ...]]


def layout(model: nn.Module | ModelSource, scope: str) -> Shapes:
    """Name -> shape of the parameters a scope moves, in the model's order, tied weights once. UsageError when there are none.

    scope    lora: the weights of the linear layers inside the repeated blocks; full: every parameter
    """
    if scope not in ("lora", "full"):
        raise ValueError(f"scope {scope} moves no parameters of the model's own")
    module = model if isinstance(model, nn.Module) else skeleton(model)
    turned = transposed(module)
    full = {name: _shape(parameter, name in turned) for name, parameter in module.named_parameters()}
    if scope == "full":
        return full
    inside = {f"{path}.weight" for path in _block_linears(module)}
    found = {name: shape for name, shape in full.items() if name in inside}
    if not found:
        raise UsageError(
            f"--scope lora: {type(module).__name__} has no linear layers in its blocks, so nothing would be trained; "
            "use --scope full"
        )
    return found


def views(model: nn.Module, scope: str) -> dict[str, torch.Tensor]:
    """Name -> the live tensor in the shape of `layout`, its rows contiguous: what is stored transposed is laid out anew."""
    turned, found = transposed(model), {}
    for name in layout(model, scope):
        parameter = model.get_parameter(name)
        if name in turned:
            parameter.data = parameter.data.t().contiguous().t()
        found[name] = parameter.data.t() if name in turned else parameter.data
    return found


def transposed(model: nn.Module) -> frozenset[str]:
    """Names of the matrices that are stored as [in, out]."""
    return frozenset(f"{path}.weight" for path, module in model.named_modules() if is_conv1d(module))


def is_linear(module: nn.Module) -> bool:
    """Whether a module is y = x W^T + b and nothing else, stored either way."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer, by name: models that bring their own code bring their own copy of the class."""
    return type(module).__name__ == "Conv1D" and getattr(module, "weight", torch.empty(0)).ndim == 2


@dataclass(frozen=True)
class Trained:
    """What a run trains, for the result and for one line on the screen.

    layers   last part of a layer's name -> how many of its tensors move
    stays    the same for matrices inside the blocks that do not
    """

    parameters: int
    of: int
    layers: dict[str, int]
    stays: dict[str, int]

    @classmethod
    def of_model(cls, source: ModelSource, scope: str) -> Trained:
        module = skeleton(source)
        full, moved = layout(module, "full"), layout(module, scope)
        path = f"{_blocks(module)[0]}."
        rest = [name for name, shape in full.items() if name not in moved and len(shape) > 1 and name.startswith(path)]
        moving, every = (sum(map(prod, shapes.values())) for shapes in (moved, full))
        return cls(moving, every, _kinds(moved), _kinds(rest))

    def warnings(self) -> tuple[str, ...]:
        """Of matrices inside the blocks that a reader of `--scope lora` may think are trained."""
        if not self.stays:
            return ()
        return (
            f"--scope lora moves linear layers only, {self.parameters:,} of {self.of:,} parameters: {', '.join(self.stays)} "
            f"({sum(self.stays.values())} tensors inside the blocks) stay as they are; --scope full moves everything",
        )


def _kinds(names: Iterable[str]) -> dict[str, int]:
    """By the last part of a name that says something."""
    return dict(Counter(name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2] for name in names))


def _shape(parameter: torch.Tensor, turned: bool) -> tuple[int, ...]:
    return tuple(parameter.shape[::-1] if turned else parameter.shape)


def _blocks(module: nn.Module) -> tuple[str, nn.ModuleList]:
    """The repeated transformer blocks: of the ModuleLists that are in no other, the one with most parameters."""
    lists = {path: child for path, child in module.named_modules() if isinstance(child, nn.ModuleList)}
    outer = {path: child for path, child in lists.items() if not any(path.startswith(f"{other}.") for other in lists)}
    if not outer:
        raise UsageError(f"--scope: {type(module).__name__} has no repeated blocks; this is no causal language model")
    return max(outer.items(), key=lambda item: sum(parameter.numel() for parameter in item[1].parameters()))


def _block_linears(module: nn.Module) -> Iterator[str]:
    """Paths of the linear layers inside the blocks."""
    path, blocks = _blocks(module)
    yield from (f"{path}.{inner}" for inner, child in blocks.named_modules() if is_linear(child))
