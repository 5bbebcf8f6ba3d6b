"""Drives the step of the user's own checkout of optsuite/LOZO or princeton-nlp/MeZO on our model and batches.

Nothing of theirs is in this project: the step's methods are found by name in the syntax tree of their trainer, as committed,
and bound at run time to a small host that answers what they ask of a trainer.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from baselines.official.absorption import Absorption
from baselines.official.checkout import ORIGINS, Origin, commit_of, git
from baselines.official.loop import StepRecord
from baselines.official.loss import step_loss
from bench.api import phase
from bench.errors import UsageError
from workloads.models.scope import layout

__all__ = ["ORIGINS", "Host", "UpstreamLoop"]

MODULES = {"torch": torch, "np": np, "numpy": np, "nn": nn, "F": nn.functional, "math": math, "random": random, "time": time}


class UpstreamLoop:
    """`step(batch)` runs upstream's step and then its update; seeds come from numpy's global stream."""

    def __init__(self, path: str, origin: Origin, model: nn.Module, settings: SimpleNamespace, scope: str) -> None:
        """settings: zo_eps, learning_rate, rank_r, step_interval. UsageError for a path, commit or file that does not fit."""
        self.origin, self.commit = origin, commit_of(Path(path), origin)
        methods = _methods(Path(path), origin)
        inside = layout(model, scope)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in inside)  # upstream moves what needs a gradient
        self.absorption = Absorption([model.get_parameter(name) for name in inside])
        self._model = model.eval()
        self._host = _bind(path, methods, model, settings)
        _mark(self._host, self.origin.perturb, lambda: phase("perturb"))
        self._update = getattr(self._host, self.origin.update)
        self._takes_model = bool(inspect.signature(self._update).parameters)

    def replay(self, losses: torch.Tensor) -> StepRecord:
        """Do a step again whose losses [2] are known, without a forward pass: the host hands them to upstream's step."""
        self._host.known = list(losses.to(next(self._model.parameters())))
        try:
            return self.step({})
        finally:
            self._host.known = []

    def state(self) -> dict[str, Any]:
        """What upstream's methods keep on `self` from step to step: numbers, tensors and dicts of tensors."""
        return {name: value for name, value in vars(self._host).items() if _kept(value)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        vars(self._host).update(state)

    def step(self, batch: Any) -> StepRecord:
        host = self._host
        host.losses.clear()
        getattr(host, self.origin.step)(self._model, batch)
        with phase("update"), self.absorption:
            self._update(*([self._model] if self._takes_model else []))
        plus, minus = torch.stack([loss.float() for loss in host.losses]).tolist()  # a second read: theirs was the gradient
        return StepRecord(int(host.zo_random_seed), plus, minus, float(host.projected_grad))


class Host:
    """What the methods find on `self`: a trainer's settings and a loss. It has no attribute `step`, for theirs counts in it."""

    def __init__(self, model: nn.Module, settings: SimpleNamespace) -> None:
        fixed = {"weight_decay": 0.0, "gradient_accumulation_steps": 1, "non_diff": False, "n_gpu": 1}
        self.model, self.args = model, SimpleNamespace(**fixed, **vars(settings))
        self.lr_scheduler = SimpleNamespace(step=lambda: None)  # the schedule is constant
        self.losses: list[torch.Tensor] = []
        self.known: list[torch.Tensor] = []

    def _get_learning_rate(self) -> float:
        return float(self.args.learning_rate)

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs

    def compute_loss_context_manager(self) -> AbstractContextManager[None]:
        return nullcontext()

    def compute_loss(self, model: nn.Module, inputs: Any) -> torch.Tensor:
        with phase("score"):
            self.losses.append(self.known.pop(0) if self.known else step_loss(model, inputs))
        return self.losses[-1]

    def zo_forward(self, model: nn.Module, inputs: Any) -> torch.Tensor:
        """Only where the checkout has none of its own."""
        return self.compute_loss(model, inputs)


def _methods(path: Path, origin: Origin) -> list[ast.FunctionDef]:
    """The step's methods and those of the same class that they call on `self`, from the committed file."""
    where = f"--upstream {path}: {origin.file}"
    text = git(path, "show", f"HEAD:./{origin.file}")
    if text is None:
        raise UsageError(f"{where} is not in that commit; give the root of a checkout of {origin.repository}")
    try:
        classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{where} is not readable Python ({error}); check it out anew") from None
    tables = [{node.name: node for node in owner.body if isinstance(node, ast.FunctionDef)} for owner in classes]
    found: dict[str, ast.FunctionDef] = next((table for table in tables if origin.step in table), {})
    chosen: dict[str, ast.FunctionDef] = {}
    wanted = [origin.update, origin.perturb, origin.step]
    while wanted:
        name = wanted.pop()
        if name in found and (name == "zo_forward" or not hasattr(Host, name)):
            chosen[name] = found[name]
            wanted += [called for called in _own_calls(found[name]) if called not in chosen]
        elif not hasattr(Host, name):
            raise UsageError(f"{where} has no method {name}; expected the file that {origin.repository} published")
    return list(chosen.values())


def _own_calls(method: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(method):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                yield name


def _bind(path: str, methods: list[ast.FunctionDef], model: nn.Module, settings: SimpleNamespace) -> Any:
    """An instance of Host that has the methods."""
    tree: Any = ast.parse("class Upstream(Host):\n    pass")
    tree.body[0].body = methods
    namespace: dict[str, Any] = {**MODULES, "Host": Host}
    flags = __future__.annotations.compiler_flag  # their annotations name things that are not imported here
    try:
        exec(compile(ast.fix_missing_locations(tree), path, "exec", flags=flags), namespace)
    except NameError as error:
        raise UsageError(f"--upstream {path}: a method needs more than this host offers ({error})") from None
    return namespace["Upstream"](model, settings)


def _kept(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(item, torch.Tensor) for item in value.values())
    return isinstance(value, int | float | torch.Tensor)


def _mark(host: Any, name: str, mark: Callable[[], AbstractContextManager[Any]]) -> None:
    method = getattr(host, name)

    def marked(*args: Any, **kwargs: Any) -> Any:
        with mark():
            return method(*args, **kwargs)

    setattr(host, name, marked)
