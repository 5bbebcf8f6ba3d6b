"""Directions: one definition, named slices of flat buffers, the epochs of V, and the statistics that the methods rest on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats

from bench.api import Direction
from workloads.directions import directions, draw
from workloads.seeds import derive_seed

LAYOUT = {"a.weight": (6, 4), "a.bias": (6,), "b.weight": (3, 8)}


def test_factors_are_slices_of_the_flat_buffers_in_layout_order() -> None:
    drawn = directions(0, 0, LAYOUT, "cpu", rank=2)
    assert drawn.u_flat.shape == ((6 + 3) * 2,)
    assert drawn.v_flat.shape == ((4 + 8) * 2,)
    assert torch.equal(drawn.u("b.weight"), drawn.u_flat[12:].view(3, 2))
    assert torch.equal(drawn.vt("b.weight"), drawn.v_flat[8:].view(2, 8))
    assert torch.equal(drawn.v("b.weight"), drawn.vt("b.weight").T)
    assert torch.equal(drawn.delta("a.weight"), drawn.u("a.weight") @ drawn.v("a.weight").T)
    assert drawn.factored("a.weight")
    assert not drawn.factored("a.bias")
    assert torch.equal(drawn.delta("a.bias"), drawn.noise("a.bias"))


def test_the_same_reference_is_the_same_numbers_and_nothing_else_is() -> None:
    reference = Direction("lowrank", 1, 7, 0, 2, 5)
    one, two = (draw(reference, LAYOUT, "cpu") for _ in range(2))
    assert torch.equal(one.u_flat, two.u_flat)
    assert torch.equal(one.v_flat, two.v_flat)
    assert torch.equal(one.noise("a.bias"), two.noise("a.bias"))
    others: list[dict[str, Any]] = [{"seed": 2}, {"step": 8}, {"query": 1}]
    for changes in others:
        other = draw(Direction(**({"kind": "lowrank", "seed": 1, "step": 7, "rank": 2, "interval": 5} | changes)), LAYOUT, "cpu")
        assert not torch.equal(one.u_flat, other.u_flat), changes
        assert not torch.equal(one.noise("a.bias"), other.noise("a.bias")), changes


def test_lower_precision_is_the_cast_of_the_same_float32_draw() -> None:
    wide = directions(3, 1, LAYOUT, "cpu")
    narrow = directions(3, 1, LAYOUT, "cpu", dtype=torch.float16)
    assert torch.equal(narrow.u_flat, wide.u_flat.half())
    assert torch.equal(narrow.v_flat, wide.v_flat.half())
    assert torch.equal(narrow.noise("a.bias"), wide.noise("a.bias").half())


def test_dense_noise_of_a_tensor_depends_on_its_name_alone() -> None:
    whole = directions(0, 4, LAYOUT, "cpu", kind="dense")
    part = directions(0, 4, {"b.weight": (3, 8)}, "cpu", kind="dense")
    assert torch.equal(whole.noise("b.weight"), part.noise("b.weight"))
    assert not torch.equal(whole.noise("b.weight"), directions(0, 5, LAYOUT, "cpu", kind="dense").noise("b.weight"))
    assert whole.u_flat.numel() == whole.v_flat.numel() == 0


def test_lowrank_keeps_v_for_an_interval_and_shares_it_between_queries() -> None:
    drawn = {(step, query): directions(0, step, LAYOUT, "cpu", interval=3, query=query) for step in range(7) for query in (0, 1)}
    for (step, query), found in drawn.items():
        assert torch.equal(found.v_flat, drawn[step // 3 * 3, 0].v_flat), (step, query)
    starts = [drawn[step, 0].v_flat for step in (0, 3, 6)]
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])
    assert len({tuple(found.u_flat.tolist()) for found in drawn.values()}) == len(drawn)


def test_factorized_draws_both_factors_for_every_step_and_query() -> None:
    drawn = [directions(0, step, LAYOUT, "cpu", kind="factorized", query=query) for step in range(3) for query in range(2)]
    assert len({tuple(found.v_flat.tolist()) for found in drawn}) == 6
    assert len({tuple(found.u_flat.tolist()) for found in drawn}) == 6


@pytest.mark.parametrize("rank", [1, 16, 512])
def test_factorized_entries_have_zero_mean_and_unit_variance(rank: int) -> None:
    layout = {"w": (40, 50)}
    z = torch.stack([directions(0, step, layout, "cpu", kind="factorized", rank=rank).delta("w") for step in range(100)])
    # Entries of one draw share factors: the mean over 100 independent draws is what concentrates.
    assert z.mean().abs() < 4 / (z.numel() ** 0.5)
    assert z.square().mean().item() == pytest.approx(1.0, abs=0.02 if rank > 1 else 0.1)


def test_projected_gradients_approach_mezos_as_the_rank_grows() -> None:
    """For a linear loss with a rank-1 gradient, <G, Z> has variance |G|^2 and excess kurtosis 6 / r; MeZO's is Gaussian."""
    layout, draws = {"w": (4, 4)}, 3000
    left, right = torch.tensor([1.0, -2.0, 0.5, 1.0]), torch.tensor([0.5, 1.0, 1.0, -1.0])
    gradient = torch.outer(left, right)

    def samples(kind: Any, rank: int) -> Any:
        found = [(gradient * directions(1, s, layout, "cpu", kind=kind, rank=rank).delta("w")).sum() for s in range(draws)]
        return (torch.stack(found) / gradient.norm()).numpy()

    mezo = samples("dense", 0)
    distance, kurtosis = {}, {}
    for rank in (1, 4, 64):
        values = samples("factorized", rank)
        assert values.var() == pytest.approx(1.0, abs=0.2 if rank == 1 else 0.1)
        distance[rank], kurtosis[rank] = stats.ks_2samp(values, mezo).statistic, stats.kurtosis(values)
    assert distance[1] > 2 * distance[64]
    assert distance[64] < 1.63 * (2 / draws) ** 0.5, "the 1 % level of the two-sample test"
    assert kurtosis[1] > 3
    assert kurtosis[4] == pytest.approx(6 / 4, abs=0.8)
    assert kurtosis[64] == pytest.approx(6 / 64, abs=0.3)


def test_seeds_are_the_same_in_every_process_and_version() -> None:
    assert derive_seed("noise", 1, 2, 0, "w") == 4389903298676152901
