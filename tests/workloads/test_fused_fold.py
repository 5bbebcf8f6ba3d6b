"""The GPU's fold kernel in Triton's interpreter: unbiased around the float64 sum, repeatable, blind to its neighbours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
from workloads.fused_fold import fold_

dtype, rank, draws = getattr(torch, sys.argv[1]), int(sys.argv[2]), 60
torch.manual_seed(0)
merged = (torch.randn(40, 140) * 0.02).to(dtype)
merged[0, :40], merged[1, :20] = 0, 6e-8
start, u, vt = merged[3:38, :], torch.randn(35, rank) * 1e-5, torch.randn(rank, 140).to(dtype).float()
merged[3, :40], merged[4, :20] = 0, 6e-8
truth, total = start.double() + u.double() @ vt.double(), 0
down = start.clone()
for seed in range(draws):
    weight = merged.clone()
    fold_(weight[3:38], u, vt, seed)
    assert torch.equal(weight[:3], merged[:3]) and torch.equal(weight[38:], merged[38:])
    total = total + weight[3:38].double()
again = merged.clone()
fold_(again[3:38], u, vt, draws - 1)
assert torch.equal(again, weight)
ulp = (truth.abs() * 2.0 ** -(10 if dtype == torch.float16 else 7)).clamp(min=6e-8 if dtype == torch.float16 else 1e-40)
error = (total / draws - truth) / ulp
nearest = (truth.to(dtype).double() - truth) / ulp
assert error.abs().max() < 5 * 0.5 / draws**0.5, error.abs().max()
assert error.abs().mean() < 0.6 * nearest.abs().mean()
"""


@pytest.mark.parametrize(("dtype", "rank"), [("float16", 2), ("bfloat16", 20)])
def test_the_fold_kernel_is_unbiased_and_replays(dtype: str, rank: int) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, dtype, str(rank)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
