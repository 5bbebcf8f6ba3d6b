"""Saving the official loop between two steps: weights, V, the interval's phase and numpy's stream, which upstream loses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from baselines.official.loop import LozoLoop, OfficialLoop
from baselines.official.upstream import UpstreamLoop
from bench.api import Snapshot
from workloads.parameters.checksum import checksum

Loop = OfficialLoop | UpstreamLoop
Parameters = list[tuple[str, torch.nn.Parameter]]


def save(parameters: Parameters, loop: Loop | None) -> Snapshot:
    """Tensors under `weight:name`, `v:name` and `upstream:...`; loop: None for shared directions, which need no more."""
    tensors = _tensors(parameters, loop)
    return Snapshot({name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}, _facts(loop))


def restore(snapshot: Snapshot, parameters: Parameters, loop: Loop | None) -> None:
    """The inverse of `save`, in place."""
    device = parameters[0][1].device
    for name, parameter in parameters:
        parameter.data = snapshot.tensors[f"weight:{name}"].to(device)
    if isinstance(loop, OfficialLoop):
        loop.steps_done = snapshot.facts["steps_done"]
    if isinstance(loop, LozoLoop):
        loop.v = {n.removeprefix("v:"): t.to(device) for n, t in snapshot.tensors.items() if n.startswith("v:")}
    if isinstance(loop, UpstreamLoop):
        state: dict[str, Any] = dict(snapshot.facts.get("upstream", {}))
        for name, tensor in snapshot.tensors.items():
            match name.split(":", 2):
                case ["upstream", attribute, key]:
                    state.setdefault(attribute, {})[key] = tensor.to(device)
                case ["upstream", attribute]:
                    state[attribute] = tensor.to(device)
        loop.set_state(state)
    if loop is not None:
        state = dict(snapshot.facts["rng"])
        state["state"] = state["state"] | {"key": np.array(state["state"]["key"], dtype=np.uint32)}
        _rng(loop).set_state(state)


def state_checksum(parameters: Parameters, loop: Loop | None) -> str:
    """Of everything `save` keeps, computed where it lives."""
    facts = torch.tensor(list(json.dumps(_facts(loop), sort_keys=True).encode()), dtype=torch.uint8)
    return checksum(_tensors(parameters, loop) | {"facts": facts})


def _tensors(parameters: Parameters, loop: Loop | None) -> dict[str, torch.Tensor]:
    tensors = {f"weight:{name}": parameter.data for name, parameter in parameters}
    if isinstance(loop, LozoLoop):
        tensors |= {f"v:{name}": v for name, v in loop.v.items()}
    if isinstance(loop, UpstreamLoop):
        for name, value in loop.state().items():
            if isinstance(value, dict):
                tensors |= {f"upstream:{name}:{key}": item for key, item in value.items()}
            elif isinstance(value, torch.Tensor):
                tensors[f"upstream:{name}"] = value
    return tensors


def _facts(loop: Loop | None) -> dict[str, Any]:
    if loop is None:
        return {}
    facts: dict[str, Any] = {"rng": _stream(loop)}
    if isinstance(loop, UpstreamLoop):
        facts["upstream"] = {name: value for name, value in loop.state().items() if isinstance(value, int | float)}
    else:
        facts["steps_done"] = loop.steps_done
    return facts


def _rng(loop: Loop) -> Any:
    return loop.rng if isinstance(loop, OfficialLoop) else np.random


def _stream(loop: Loop) -> dict[str, Any]:
    state: dict[str, Any] = _rng(loop).get_state(legacy=False)
    return state | {"state": {"key": state["state"]["key"].tolist(), "pos": int(state["state"]["pos"])}}
