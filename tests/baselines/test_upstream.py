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
from stepping import steps

from analysis.runs import Run, differences
from baselines.official import LozoLoop, MezoLoop
from baselines.official.saving import state_checksum
from baselines.official.upstream import ORIGINS, UpstreamLoop
from bench.defaults import complete_all
from bench.errors import UsageError
from bench.registry import make_workload, workload_class
from bench.result import Result
from workloads.models.weights import load_model
from workloads.tasks.collate import option_rows

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
        file = path / ORIGINS[str(workload_class(workload).upstream)].file
        file.parent.mkdir(parents=True)
        file.write_text(text)
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "stand-in"]):
            subprocess.run(["git", "-C", str(path), *command], check=True)
        commit = subprocess.run(["git", "-C", str(path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
        return str(path), replace(ORIGINS[str(workload_class(workload).upstream)], commit=commit[:7])

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
        (path, ORIGINS["princeton-nlp/MeZO"], "expected 552cb1b"),
        (path, replace(origin, file="large_models/other.py"), "other.py is not in that commit"),
        (str(tmp_path), origin, "not a git checkout"),
        (str(tmp_path / "nowhere"), origin, "no such folder"),
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


def test_beside_other_executors_the_checkout_is_officials_alone(
    checkout: Make, tiny_source: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, origin = checkout("lozo", LOZO)
    monkeypatch.setitem(ORIGINS, "optsuite/LOZO", origin)
    given = {"model": tiny_source("opt").path, "weights": "random", "device": "cpu", "upstream": path}
    specs = complete_all(given, ["eager", "official", "vllm"])
    assert [(spec.executor, spec.upstream) for spec in specs] == [("eager", None), ("official", path), ("vllm", None)]
    with pytest.raises(UsageError, match="--executor eager runs no code of upstream's"):
        complete_all(given, ["eager", "vllm"])


def test_a_checkout_compares_with_what_stands_in_for_it_and_is_not_taken_for_it(tiny_spec: Make) -> None:
    spec = tiny_spec("lozo", "official", directions="upstream")
    environment = {"device": "a CPU", "torch": "2.11.0", "threads": 1}
    ours, theirs = (
        Run(Path(), Result("a", "20260101T000000Z", "passed", s.to_json(), 1, environment, {}))
        for s in (spec, replace(spec, upstream="/checkout"))
    )
    assert differences(ours, theirs) == {}
    assert ours.point != theirs.point
    assert (ours.label, theirs.label) == ("official", "official (upstream)")


def test_the_checksum_sees_what_a_checkout_keeps_between_steps(checkout: Make, tiny_source: Make, tiny_task: Any) -> None:
    path, origin = checkout("lozo", LOZO)
    model, batch = load_model(tiny_source("opt"), torch.float32, "cpu"), option_rows(tiny_task.train, 1)
    theirs = UpstreamLoop(path, origin, model, SETTINGS, "lora")
    np.random.seed(42)
    theirs.step(batch)
    parameters, kept = list(model.named_parameters()), theirs.state()
    before = state_checksum(parameters, theirs)
    for lost in ({"store": {name: v + 1 for name, v in kept["store"].items()}}, {"step": kept["step"] + 1}):
        theirs.set_state(lost)
        assert state_checksum(parameters, theirs) != before, lost.keys()
        theirs.set_state(kept)
        assert state_checksum(parameters, theirs) == before


def test_the_executor_runs_a_checkout_and_redoes_its_steps(
    checkout: Make, tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, origin = checkout("lozo", LOZO)
    monkeypatch.setitem(ORIGINS, "optsuite/LOZO", origin)
    spec = tiny_spec("lozo", "official", directions="upstream", upstream=path, interval=3)
    method, batch = make_workload(spec), tiny_task.train
    own = loaded(replace(spec, upstream=None), tiny_source("opt"), tiny_task)
    expected = steps(own, method, 0, [batch] * 5)
    executor = loaded(spec, tiny_source("opt"), tiny_task)
    losses = steps(executor, method, 0, [batch] * 2)
    saved, early = executor.snapshot(), executor.checksum()
    losses = torch.cat([losses, steps(executor, method, 2, [batch] * 3)])
    assert torch.equal(losses, expected)
    assert [executor.seed(step) for step in range(5)] == [own.seed(step) for step in range(5)]
    facts, work = executor.details(), executor.work(batch, method.plan(0))
    assert facts["upstream_commit"].startswith(origin.commit)
    assert facts["upstream_repository"] == "optsuite/LOZO"
    assert work == own.work(batch, method.plan(0)) | {"host_syncs": 2}
    end = executor.checksum()
    executor.restore(saved)
    assert executor.checksum() == early
    for step in range(2, 5):
        executor.replay(method, step, losses[step])
    assert executor.checksum() == end
