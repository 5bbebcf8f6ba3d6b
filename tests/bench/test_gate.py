"""The correctness gate: how far losses may be from a float32 reference."""

from __future__ import annotations

import pytest
import torch

from bench.api import Direction, Probe
from bench.harness.gate import check, expected

PROBES = (Probe(Direction("dense", 0, 0), 1e-3), Probe(Direction("dense", 0, 0), -1e-3))
TRUTH = [0.75, 0.70]


def gate(found, dtype="float32", device="cpu", same=TRUTH):
    class Scores:
        leaves_residue = False

        def score(self, batch, probes):
            return torch.tensor(found)

    losses = {"float32": TRUTH, dtype: same if dtype != "float32" else TRUTH}
    expect = expected(lambda batch, probes, kind: torch.tensor(losses[kind], dtype=torch.float64), (), PROBES, dtype, device)
    return check(Scores(), expect)


def test_float32_allows_two_hundred_thousandths():
    assert gate([0.75 + 1.5e-5, 0.70])[0].passed
    assert not gate([0.75 + 2.5e-5, 0.70])[0].passed
    assert gate([0.75 + 5e-5, 0.70], device="cuda")[0].passed


def test_16_bits_are_measured_against_a_plain_forward_in_16_bits():
    assert gate([0.75 + 0.020, 0.70], "float16", same=[0.76, 0.70])[0].passed
    assert not gate([0.75 + 0.025, 0.70], "float16", same=[0.76, 0.70])[0].passed
    assert not gate([0.75 + 0.020, 0.70], "float16", same=[0.751, 0.70])[0].passed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_never_pass(value):
    found, _ = gate([0.75, value])
    assert not found.passed and found.value is None


def test_a_gate_that_cannot_see_the_perturbation_says_so():
    assert gate(TRUTH)[1] is None
    warning = gate(TRUTH, "float16", same=[0.78, 0.70])[1]
    assert warning and "larger --eps" in warning


def test_the_check_leaves_the_official_weights_as_they_were(tiny_source, tiny_task):
    import torch

    from baselines.official.executor import OfficialExecutor
    from bench.config import RunSpec
    from bench.harness import gate
    from bench.registry import make_workload

    spec = RunSpec(
        workload="lozo", executor="official", model="tiny", weights="random", task="sst2", dtype="float16", device="cpu",
        directions="upstream", batching="sequential", kv="recompute", lora="dense", loop="requests", batch_size=8,
    )  # fmt: skip
    executor, probes = OfficialExecutor(), make_workload(spec).plan(0)
    executor.load(spec, tiny_source("opt"), tiny_task)
    before = executor.parameters()
    gate.check(executor, gate.Expected(tiny_task.train, probes, [0.0, 0.0], 1.0))
    after = executor.parameters()
    assert all(torch.equal(before[name], after[name]) for name in before)
    executor.score(tiny_task.train, probes)  # what the check would leave behind by itself
    assert any(not torch.equal(before[name], value) for name, value in executor.parameters().items())
