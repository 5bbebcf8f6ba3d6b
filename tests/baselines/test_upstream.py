"""Driving a user's own checkout, shown on small stand-ins written here in a temporary git repository."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from baselines.official import LozoLoop, MezoLoop
from baselines.official.upstream import ORIGINS, UpstreamLoop
from bench.api import UsageError
from workloads.tasks.collate import option_rows
from workloads.weights import load_model

Make = Callable[..., Any]
SETTINGS = SimpleNamespace(zo_eps=1e-3, learning_rate=1e-4, rank_r=2, step_interval=3)

MEZO = """
from somewhere import Trainer

class Stand(Trainer):
    def noise(self, like) -> "Unknown":
        return torch.randn(like.shape)

    def zo_step(self, model: nowhere.Model, inputs):
        self.chosen = [p for p in model.parameters() if p.requires_grad]
        self.zo_random_seed = np.random.randint(1000000000)
        self.zo_perturb_parameters(1)
        first = self.zo_forward(model, inputs)
        self.zo_perturb_parameters(-2)
        second = self.zo_forward(model, inputs)
        self.projected_grad = ((first - second) / (2 * self.args.zo_eps)).item()
        self.zo_perturb_parameters(1)
        return first

    def zo_perturb_parameters(self, scale):
        torch.manual_seed(self.zo_random_seed)
        for p in self.chosen:
            p.data = p.data + scale * self.noise(p) * self.args.zo_eps

    def zo_update(self, model):
        torch.manual_seed(self.zo_random_seed)
        for p in self.chosen:
            p.data = p.data - self._get_learning_rate() * (self.projected_grad * self.noise(p))
        self.lr_scheduler.step()
"""

LOZO = """
class Stand:
    def lowrank_zo_step(self, model, inputs):
        self.step = self.step + 1 if hasattr(self, "step") else 0
        self.named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.zo_random_seed = np.random.randint(1000000000)
        self.store = getattr(self, "store", {})
        losses = []
        for scale in (1, -2):
            self.lowrank_zo_perturb_parameters(scale)
            losses.append(self.zo_forward(model, inputs))
        self.projected_grad = ((losses[0] - losses[1]) / (2 * self.args.zo_eps)).item()
        self.lowrank_zo_perturb_parameters(1)

    def zo_forward(self, model, inputs):
        with torch.inference_mode(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs))

    def lowrank_zo_perturb_parameters(self, scale):
        torch.manual_seed(self.zo_random_seed)
        for n, p in self.named:
            if self.step % self.args.step_interval == 0:
                self.store[n] = torch.randn(p.size(1), self.args.rank_r)
            p.data = p.data + scale * (torch.randn(p.size(0), self.args.rank_r) @ self.store[n].t()) * self.args.zo_eps

    def lowrank_zo_update(self):
        torch.manual_seed(self.zo_random_seed)
        for n, p in self.named:
            z = torch.randn(p.size(0), self.args.rank_r) @ self.store[n].t()
            p.data = p.data - self._get_learning_rate() * (self.projected_grad * z)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[[str, str], tuple[str, Any]]:
    """checkout(workload, text): a repository with that text as the trainer, and an origin that names its commit."""

    def make(workload: str, text: str) -> tuple[str, Any]:
        path = tmp_path / workload
        file = path / ORIGINS[workload].file
        file.parent.mkdir(parents=True)
        file.write_text(text)
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "stand-in"]):
            subprocess.run(["git", "-C", str(path), *command], check=True)
        commit = subprocess.run(["git", "-C", str(path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
        return str(path), replace(ORIGINS[workload], commit=commit[:7])

    return make


@pytest.mark.parametrize(("workload", "text", "scope"), [("mezo", MEZO, "full"), ("lozo", LOZO, "lora")])
def test_the_methods_of_a_checkout_drive_our_model(
    workload: str, text: str, scope: str, checkout: Make, tiny_source: Make, tiny_task: Any
) -> None:
    batch, source = option_rows(tiny_task.train, 1), tiny_source("opt")
    path, origin = checkout(workload, text)
    theirs = UpstreamLoop(path, origin, load_model(source, torch.float32, "cpu"), SETTINGS, scope)
    np.random.seed(42)
    found = [theirs.step(batch) for _ in range(5)]
    common: dict[str, Any] = {"eps": 1e-3, "learning_rate": 1e-4, "scope": scope, "rng": np.random.RandomState(42)}
    model = load_model(source, torch.float32, "cpu")
    ours = MezoLoop(model, **common) if workload == "mezo" else LozoLoop(model, rank=2, interval=3, **common)
    assert found == [ours.step(batch) for _ in range(5)]
    assert theirs.commit.startswith(origin.commit)
    assert theirs.absorption.fraction() == pytest.approx(1.0, abs=0.01)


def test_what_does_not_fit_is_refused(checkout: Make, tiny_source: Make, tmp_path: Path) -> None:
    model = load_model(tiny_source("opt"), torch.float32, "cpu")
    path, origin = checkout("mezo", MEZO.replace("def zo_update", "def zo_other"))
    cases = [
        (path, origin, "no method zo_update"),
        (path, ORIGINS["mezo"], "expected 552cb1b"),
        (path, replace(origin, file="large_models/other.py"), "other.py is not in that commit"),
        (str(tmp_path / "nowhere"), origin, "not a git checkout"),
    ]
    for where, what, message in cases:
        with pytest.raises(UsageError, match=message):
            UpstreamLoop(where, what, model, SETTINGS, "full")
    broken, origin = checkout("lozo", "def broken(:")
    with pytest.raises(UsageError, match="not readable Python"):
        UpstreamLoop(broken, origin, model, SETTINGS, "full")


def test_the_executor_refuses_another_commit_and_shared_directions(
    checkout: Make, tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any
) -> None:
    path, _ = checkout("mezo", MEZO)
    for directions, message in (("upstream", "expected 552cb1b"), ("shared", "--directions upstream")):
        spec = tiny_spec("mezo", "official", directions=directions, upstream=path)
        with pytest.raises(UsageError, match=message):
            loaded(spec, tiny_source("opt"), tiny_task)
