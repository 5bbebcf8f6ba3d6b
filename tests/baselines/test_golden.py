"""The official loops against trajectories recorded from upstream's own code (tests/baselines/golden)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from baselines.official import LozoLoop, MezoLoop

GOLDEN = Path(__file__).parent / "golden"


def loop_of(model: torch.nn.Module, settings: dict[str, Any], rng: object = None) -> LozoLoop | MezoLoop:
    common: dict[str, Any] = {"eps": settings["eps"], "learning_rate": settings["lr"], "scope": settings["scope"], "rng": rng}
    if settings["algo"] == "mezo":
        return MezoLoop(model, **common)
    return LozoLoop(model, rank=settings["rank"], interval=settings["interval"], **common)


@pytest.mark.parametrize("case", ["lozo_full", "mezo_full"])
def test_the_official_loop_reproduces_upstream(case: str) -> None:
    recorded = json.loads((GOLDEN / case / "trajectory.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(GOLDEN / case, dtype=torch.float32)
    loop, state = loop_of(model, recorded["settings"]), torch.get_rng_state()
    np.random.seed(recorded["settings"]["np_seed"])
    for batch, expected in zip(recorded["batches"], recorded["steps"], strict=True):
        record = loop.step(batch)
        assert record.seed == expected["seed"]
        assert record.loss_plus == pytest.approx(expected["loss_plus"], rel=1e-5)
        assert record.projected_grad == pytest.approx(expected["projected_grad"], abs=1e-2)
    for name, expected in recorded["final_parameters"].items():
        values = model.get_parameter(name).double()
        # Biases cancel in their sum: another processor's rounding shows beside their magnitudes, not beside what is left of them.
        assert values.sum().item() == pytest.approx(expected["sum"], abs=1e-5 * expected["abs_sum"]), name
        assert values.abs().sum().item() == pytest.approx(expected["abs_sum"], rel=1e-5), name
    assert torch.equal(torch.get_rng_state(), state), "torch's global stream is not touched"


def test_a_stream_of_its_own_gives_the_same_seeds_as_numpys_global_one() -> None:
    recorded = json.loads((GOLDEN / "mezo_full" / "trajectory.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(GOLDEN / "mezo_full", dtype=torch.float32)
    loop = loop_of(model, recorded["settings"], rng=np.random.RandomState(42))
    batch = {name: torch.tensor(rows) for name, rows in recorded["batches"][0].items()}
    assert loop.step(batch).seed == recorded["steps"][0]["seed"]
    drawn = loop_of(model, recorded["settings"], rng=np.random.default_rng(0)).step(batch).seed
    assert drawn == np.random.default_rng(0).integers(1000000000)
