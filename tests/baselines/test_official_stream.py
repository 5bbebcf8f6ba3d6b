"""The official loops, bit for bit, against the published step written out over torch's global stream: ranks, scopes, types."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.official import LozoLoop, MezoLoop
from bench.data import Batch
from workloads.models.weights import load_model
from workloads.tasks.collate import option_rows

Make = Callable[..., Any]
EPS, RATE, STEPS = 1e-3, 1e-4, 5

CASES = [("lozo", rank, interval, scope, "float32", 0.0) for rank in (1, 4) for interval in (1, 3) for scope in ("lora", "full")]
CASES += [("lozo", 8, 50, "lora", "float32", 0.0), ("lozo", 2, 2, "full", "float32", 0.1), ("mezo", 0, 1, "lora", "float32", 0.1)]
CASES += [(algorithm, 2, 3, "full", dtype, 0.0) for algorithm in ("lozo", "mezo") for dtype in ("float16", "bfloat16")]


def plain_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    rows = option_rows(batch, 1)
    logits = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits
    options = [option[0] for example in batch for option in example.options]
    scores = torch.stack([row[-2].log_softmax(-1)[token] for row, token in zip(logits, options, strict=True)])
    return F.cross_entropy(scores.view(len(batch), -1), torch.tensor([example.label for example in batch]))


@torch.no_grad()
def published(model: torch.nn.Module, batch: Batch, algorithm: str, rank: int, interval: int, scope: str, decay: float) -> list:
    """(seed, loss, loss, projected gradient) of each step; the model is left at the end of the trajectory."""
    moved = [(n, p) for n, p in model.named_parameters() if scope == "full" or ("embed" not in n and p.ndim == 2)]
    seeds, v, found = np.random.RandomState(42), {}, []
    for step in range(STEPS):
        seed = int(seeds.randint(1000000000))

        def z(name: str, p: torch.Tensor, resample: bool) -> torch.Tensor:
            if algorithm == "mezo" or p.ndim != 2:
                return torch.normal(0.0, 1.0, p.shape, dtype=p.dtype)
            if resample:
                v[name] = torch.randn(p.size(1), rank, dtype=p.dtype)
            return torch.randn(p.size(0), rank, dtype=p.dtype) @ v[name].T

        def perturb(scale: int, seed: int = seed, resample: bool = step % interval == 0, z: Any = z) -> None:
            torch.manual_seed(seed)
            for name, p in moved:
                p.data = p.data + scale * z(name, p, resample) * EPS

        perturb(1)
        plus = plain_loss(model, batch)
        perturb(-2)
        minus = plain_loss(model, batch)
        perturb(1)
        gradient = ((plus - minus) / (2 * EPS)).item()
        torch.manual_seed(seed)
        for name, p in moved:
            move = gradient * z(name, p, False)
            spared = any(word in name for word in ("bias", "layer_norm", "layernorm"))
            p.data = p.data - RATE * (move if spared else move + decay * p.data)
        found.append((seed, plus.item(), minus.item(), gradient))
    return found


@pytest.mark.parametrize(("algorithm", "rank", "interval", "scope", "dtype", "decay"), CASES)
def test_a_loop_is_the_published_step_bit_for_bit(
    algorithm: str, rank: int, interval: int, scope: str, dtype: str, decay: float, tiny_source: Make, tiny_task: Any
) -> None:
    source, batch = tiny_source("opt"), tiny_task.train
    theirs, model = (load_model(source, getattr(torch, dtype), "cpu") for _ in range(2))
    expected = published(theirs, batch, algorithm, rank, interval, scope, decay)
    common: dict[str, Any] = {"eps": EPS, "learning_rate": RATE, "scope": scope, "weight_decay": decay}
    common["rng"] = np.random.RandomState(42)
    loop = MezoLoop(model, **common) if algorithm == "mezo" else LozoLoop(model, rank=rank, interval=interval, **common)
    rows = option_rows(batch, 1)
    for seed, plus, minus, gradient in expected:
        record = loop.step(rows)
        assert (record.seed, record.loss_plus, record.loss_minus, record.projected_grad) == (seed, plus, minus, gradient)
    for name, parameter in theirs.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name


def test_a_measured_update_leaves_the_published_trajectory(tiny_source: Make, tiny_task: Any) -> None:
    """What makes the check above mean something: without the resampling quirk it fails."""
    source, batch = tiny_source("opt"), tiny_task.train
    expected = published(load_model(source, torch.float32, "cpu"), batch, "lozo", 2, 3, "lora", 0.0)
    rng = np.random.RandomState(42)
    options: dict[str, Any] = {"rank": 2, "interval": 3, "learning_rate": RATE, "scope": "lora", "rng": rng, "measured": True}
    loop = LozoLoop(load_model(source, torch.float32, "cpu"), eps=EPS, **options)
    losses = [loop.step(option_rows(batch, 1)).loss_plus for _ in range(STEPS)]
    assert losses[0] == expected[0][1]
    assert losses[1] != expected[1][1]


def test_the_package_itself_imports_no_torch() -> None:
    code = "import sys, baselines.official; assert 'torch' not in sys.modules; from baselines.official import LozoLoop, MezoLoop"
    subprocess.run([sys.executable, "-c", code], check=True)
