"""Modules that give every probe's rows their own parameters, wrapped around the Hugging Face modules that own them.

Linear layers add a low-rank product and a bias per probe. Whatever else has parameters in scope (norms, embeddings; scope
`full` only) runs once per probe on that probe's rows, under that probe's values. The model's own weights never change here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from baselines.eager.states import AdapterStates
from baselines.eager.trained import TrainedStates
from bench.api import mark
from workloads.models.scope import is_conv1d, is_linear


@dataclass
class Current:
    """What the wrapped modules run under: the probes of this forward, or None for the weights as they are.

    packed    whether the rows stand end to end in one sequence, probe after probe
    tokens    of that sequence
    divisible whether every wrapped module that ran over packed rows could be run on the tokens of one probe alone
    """

    states: AdapterStates | TrainedStates | None = None
    packed: bool = False
    tokens: int = 0
    divisible: bool = True


class ProbeLinear(nn.Module):
    """inner: a linear layer, stored either way; weight: canonical name of its weight where it is in scope; bias likewise."""

    def __init__(self, inner: Any, weight: str | None, bias: str | None, current: Current) -> None:
        super().__init__()
        self.inner, self.weight_name, self.bias_name, self._current = inner, weight, bias, current
        self._turned, self._rounded = is_conv1d(inner), getattr(inner, "round_input", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = self._current.states
        if states is None:
            return self.inner(x)
        matrix = self.inner.weight.t() if self._turned else self.inner.weight
        y = F.linear(x if self._rounded is None else self._rounded(x), matrix, None if self.bias_name else self.inner.bias)
        if self.bias_name:
            assert isinstance(states, AdapterStates)
            per_probe = y.view(states.probes, -1, y.size(-1)) + states.values(self.bias_name)[:, None]
            y = per_probe.view_as(y)
        if self.weight_name is None:
            return y
        with mark("lora_shrink_expand"):
            return states.add(self.weight_name, x, y)


class PerProbe(nn.Module):
    """names: the inner module's own parameter name -> canonical name. Its inputs' rows stand probe by probe."""

    def __init__(self, inner: nn.Module, names: Mapping[str, str], current: Current) -> None:
        super().__init__()
        self.inner, self._names, self._current = inner, dict(names), current

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        states = self._current.states
        if states is None:
            self._current.divisible &= not self._current.packed or self._divides((*args, *kwargs.values()))
            return self.inner(*args, **kwargs)
        assert isinstance(states, AdapterStates)  # an adapter stands beside linear layers alone
        found, packed = [], self._current.packed
        for probe in range(states.probes):
            own = {parameter: states.value(name, probe) for parameter, name in self._names.items()}
            part = [_rows(a, states.probes, probe, packed) for a in args]
            named = {key: _rows(a, states.probes, probe, packed) for key, a in kwargs.items()}
            self._current.states = states.only(probe)  # for wrapped modules inside
            found.append(functional_call(self.inner, own, tuple(part), named))
        self._current.states = states
        if isinstance(found[0], tuple):
            return tuple(torch.cat(parts, dim=_axis(parts[0], packed)) for parts in zip(*found, strict=True))
        return torch.cat(found, dim=_axis(found[0], packed))

    def _divides(self, given: tuple[Any, ...]) -> bool:
        """Not where heads come before tokens (Gemma 3's norms), nor where whole rows are inside (attention that owns sinks)."""
        tensors = [value for value in given if isinstance(value, torch.Tensor) and value.ndim]
        along = any(value.size(_axis(value, True)) == self._current.tokens for value in tensors)
        return along and next(self.inner.children(), None) is None


def wrap(model: nn.Module, scope: Mapping[str, object]) -> Current:
    """Wrap every module of the model that owns a parameter in scope; returns what they all look at."""
    current = Current()
    canonical = {id(parameter): name for name, parameter in model.named_parameters() if name in scope}
    for path, module in reversed(list(model.named_modules())):  # what is inside first
        own = {key: canonical.get(id(p)) for key, p in module.named_parameters(recurse=False)}
        names = {key: name for key, name in own.items() if name is not None}
        if is_linear(module) and names:
            model.set_submodule(path, ProbeLinear(module, names.get("weight"), names.get("bias"), current))
        elif names:
            model.set_submodule(path, PerProbe(module, names, current))
    return current


def _rows(value: Any, probes: int, probe: int, packed: bool) -> Any:
    """The probe's rows of an argument; rotary embeddings come as a pair."""
    if isinstance(value, tuple):
        return tuple(_rows(part, probes, probe, packed) for part in value)
    if not isinstance(value, torch.Tensor) or value.ndim == 0:
        return value
    axis = _axis(value, packed)
    return value.chunk(probes, dim=axis)[probe] if value.size(axis) % probes == 0 else value


def _axis(value: torch.Tensor, packed: bool) -> int:
    """Where the probes' rows stand: of packed ones [1, tokens, ...], or [tokens, ...] where the model has flattened them."""
    return int(packed and value.ndim > 1 and value.size(0) == 1)
