"""The GPU's fold kernel, on a GPU or else in Triton's interpreter: unbiased around the float64 sum, repeatable, blind to its
neighbours. The interpreter has no product of two bfloat16 matrices, so a single update is folded in float16.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

PROGRAM = """
import sys, torch
torch.set_default_device(sys.argv[1])
from workloads.parameters.fold_kernel import FusedFold

dtype, rank, draws = getattr(torch, sys.argv[2]), int(sys.argv[3]), 24
single = sys.argv[4] == "single"  # one update as it was drawn, in the weights' type, beside its amount
least, bits = (2.0**-24, 10) if dtype == torch.float16 else (2.0**-120, 7)
torch.manual_seed(0)
merged, alone = (torch.randn(40, 140) * 0.02).to(dtype), (torch.randn(70, 24) * 0.02).to(dtype)
merged[3, :40], merged[4, :20], merged[5, :9] = 0, 6e-8, -0.0
alone[:8] = torch.arange(24) * least  # float16's smallest numbers
start = merged.clone(), alone.clone()
layout = {"q": (17, 140), "alone": (70, 24), "k": (18, 140)}
places = {"q": slice(0, 17), "alone": slice(17, 87), "k": slice(87, 105)}
u, amount = torch.randn(105, rank), torch.tensor(1e-5)
v = {name: torch.randn(rank, shape[1]).to(dtype) for name, shape in layout.items()}
u = u.to(dtype) if single else u
u[17] = 0.0
u, amount = (u, amount) if single else (u * amount, torch.tensor(1.0))
views = {"q": merged[3:20], "alone": alone, "k": merged[20:38]}
fold = FusedFold(views, layout)
flat_v = torch.cat([part.flatten() for part in v.values()])
total = dict.fromkeys(layout, 0)


def spacing(n):
    return torch.maximum(2.0 ** truth[n].abs().log2().floor().clamp(min=-1000) * 2.0**-bits, torch.tensor(least))


for seed in range(draws):
    merged.copy_(start[0]), alone.copy_(start[1])
    truth = {n: views[n].double() + amount.double() * (u[places[n]].double() @ v[n].double()) for n in layout}
    fold(u.flatten(), flat_v, amount, rank, seed)
    assert torch.equal(merged[:3], start[0][:3]) and torch.equal(merged[38:], start[0][38:])
    assert torch.equal(alone[0], start[1][0]), "what nothing is added to stays bit for bit"
    for n in layout:
        assert ((views[n].double() - truth[n]).abs() <= 1.001 * spacing(n) + 1e-11).all(), "one of the two neighbours"
        total[n] = total[n] + views[n].double()
last = {n: views[n].clone() for n in layout}
assert not torch.equal(last["q"][:17, :24], last["k"][:17, :24])
merged.copy_(start[0]), alone.copy_(start[1])
fold(u.flatten(), flat_v, amount, rank, draws - 1)
assert all(torch.equal(last[n], views[n]) for n in layout)
for n in layout:
    error, nearest = (total[n] / draws - truth[n]) / spacing(n), (truth[n].to(dtype).double() - truth[n]) / spacing(n)
    print(n, error.abs().max().item(), error.mean().item(), error.abs().mean().item(), nearest.abs().mean().item())
    assert error.abs().max() < 5.5 * 0.5 / draws**0.5, (n, error.abs().max())
    assert error.mean().abs() < 5 * 0.5 / (draws * error.numel()) ** 0.5, (n, error.mean())
    assert error.abs().mean() < 0.6 * nearest.abs().mean()
merged.copy_(start[0])
fold(u.flatten(), flat_v, torch.tensor(float("nan")), rank, 0)
assert merged[3:38].isnan().all()
"""


STATE = """
import sys, torch
torch.set_default_device(sys.argv[1])
from bench.api import Direction
from workloads.directions import draw
from workloads.parameters.snapshot import restore, save
from workloads.parameters.accumulated import AccumulatedState
from workloads.parameters.means import RunningMeans

device = sys.argv[1]
layout = {"a": (24, 40), "norm": (40,), "b": (40, 24), "c": (24, 40)}


def fold(directions, resumed):
    torch.manual_seed(0)
    weights = {name: (torch.randn(shape) * 0.02).half() for name, shape in layout.items()}
    truth = {name: weight.double() for name, weight in weights.items()}
    state = AccumulatedState(layout, device, torch.float16)
    for direction in directions:
        drawn = draw(direction, layout, device, torch.float16)
        state.add(drawn, torch.tensor(1e-4))
        for name in "abc":
            truth[name] += 1e-4 * drawn.scale * (drawn.u(name).double() @ drawn.v(name).double().t())
    if resumed:
        means = RunningMeans(layout, torch.device(device))
        snapshot, state = save(weights, state, means), AccumulatedState(layout, device, torch.float16)
        restore(snapshot, weights, state, means, None)
    state.fused = True  # in the interpreter too
    state.fold(weights, list(state.pending))
    assert not state.pending and state.facts()["fold_cosine"] > 0.5
    return weights, truth


for directions in (
    [Direction("factorized", 0, 3, 0, 4)],
    [Direction("lowrank", 0, 3, 0, 2, 50), Direction("lowrank", 0, 4, 0, 2, 50)],
    [Direction("factorized", 0, 3, 0, 4), Direction("factorized", 0, 3, 1, 4), Direction("factorized", 0, 3, 2, 4)],
):
    weights, truth = fold(directions, False)
    for name in layout:
        spacing = (2.0 ** truth[name].abs().log2().floor() * 2.0**-10).clamp(min=2.0**-24)
        error = (weights[name].double() - truth[name]) / spacing
        assert error.abs().max() < 1.001 and error.mean().abs() < 5 * 0.5 / error.numel() ** 0.5, (directions, name)
    again, _ = fold(directions, True)
    assert all(torch.equal(again[name], weights[name]) for name in layout)
"""


@pytest.mark.parametrize(("dtype", "rank", "kind"), [("float16", 2, "sum"), ("bfloat16", 20, "sum"), ("float16", 36, "single")])
def test_the_fold_kernel_is_unbiased_and_replays(run_kernels: Callable[..., None], dtype: str, rank: int, kind: str) -> None:
    run_kernels(PROGRAM, dtype, str(rank), kind)


def test_the_accumulated_state_folds_through_the_kernel(run_kernels: Callable[..., None]) -> None:
    """One update, a sum of updates over one V, three queries together; the same after a snapshot."""
    run_kernels(STATE)


PARTS = """
import sys, torch
torch.set_default_device(sys.argv[1])
from workloads.parameters.fold_kernel import FusedFold
from workloads.parameters.shards import Shard, Shards

rank, layout = 4, {"column": (96, 40), "row": (24, 80), "both": (16, 40)}
torch.manual_seed(0)
whole = {name: (torch.randn(shape) * 0.02).half() for name, shape in layout.items()}
u = {name: torch.randn(shape[0], rank) for name, shape in layout.items()}
vt = {name: torch.randn(rank, shape[1]).half() for name, shape in layout.items()}
halves = []
for part in range(2):
    split = {"column": Shard(0, 48 * part, 48, 96), "row": Shard(1, 40 * part, 40, 80), "both": Shard(0, 0, 16, 16)}
    shards = Shards(layout, split)
    held = {name: shards.cut(name, weight).contiguous() for name, weight in whole.items()}
    flat_u = torch.cat([shards.parts[name].rows(u[name]).flatten() for name in layout])
    flat_v = torch.cat([shards.parts[name].columns(vt[name]).flatten() for name in layout])
    FusedFold(held, shards.layout, shards)(flat_u, flat_v, torch.tensor(1e-4), rank, 7)
    halves.append((shards, held))
flat = lambda parts: torch.cat([part.flatten() for part in parts.values()])
FusedFold(whole, layout)(flat(u), flat(vt), torch.tensor(1e-4), rank, 7)
for shards, held in halves:
    assert all(torch.equal(shards.cut(name, whole[name]), held[name]) for name in layout)
try:
    FusedFold({"row": torch.zeros(24, 76).half()}, {"row": (24, 76)}, Shards({"row": (24, 80)}, {"row": Shard(1, 4, 76, 80)}))
except ValueError as error:
    assert "column 4" in str(error)
else:
    raise AssertionError("no random numbers of the whole for such a part")
"""


def test_parts_of_a_matrix_are_rounded_as_the_whole(run_kernels: Callable[..., None]) -> None:
    run_kernels(PARTS)
