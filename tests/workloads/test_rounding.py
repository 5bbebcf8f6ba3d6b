"""Stochastic rounding: only the two neighbours, the right odds, and the same again from the same seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from workloads.parameters.rounding import add_, stochastic_round

HALF = (torch.float16, torch.bfloat16)
VALUES = [0.1, -0.1, 1.0003, -3.14159, 1000.3, -2.0001, 0.0]
SUBNORMAL = {torch.float16: [3e-8, -3e-8, 1.3e-7, -9.7e-7, 1e-9], torch.bfloat16: [3e-41, -1.5e-40, 1e-42]}


def rounded(value: float, dtype: torch.dtype, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return stochastic_round(torch.full((count,), value), dtype, generator)


@pytest.mark.parametrize("dtype", HALF)
def test_only_the_two_neighbours_come_out_and_their_mean_is_the_value(dtype: torch.dtype) -> None:
    count = 40000
    for value in VALUES + SUBNORMAL[dtype]:
        exact = torch.tensor(value, dtype=torch.float32).double()
        found = rounded(value, dtype, count).double()
        levels = found.unique()
        assert len(levels) <= 2, value
        gap = (levels.max() - levels.min()).item()
        assert levels.min() <= exact <= levels.max(), value
        if len(levels) == 2:
            assert torch.tensor(levels[0].item(), dtype=dtype).double() == levels[0]
            nothing_between = torch.tensor((levels[0] + levels[1]).item() / 2, dtype=dtype).double()
            assert nothing_between in levels, value
        share = ((exact - levels.min()) / gap).item() if gap else 0.0
        deviation = gap * (share * (1 - share) / count) ** 0.5
        assert abs(found.mean() - exact) <= 5 * deviation, value


@pytest.mark.parametrize("dtype", HALF)
def test_what_fits_is_left_alone(dtype: torch.dtype) -> None:
    values = torch.randn(5000).to(dtype)
    extremes = torch.tensor([0.0, -0.0, torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).smallest_normal])
    values = torch.cat([values, extremes.to(dtype), values * torch.finfo(dtype).smallest_normal])
    assert torch.equal(stochastic_round(values.float(), dtype, torch.Generator().manual_seed(1)), values)


@pytest.mark.parametrize("dtype", HALF)
def test_small_updates_survive_on_average_where_nearest_rounding_loses_them(dtype: torch.dtype) -> None:
    weight = torch.ones(20000, dtype=dtype)
    nearest = weight.clone()
    for step in range(20):
        add_(weight, torch.full((20000,), 1e-5), 0, step, "w")
        nearest += torch.full((20000,), 1e-5).to(dtype)
    assert torch.equal(nearest, torch.ones(20000, dtype=dtype))
    assert weight.double().mean().item() - 1 == pytest.approx(2e-4, rel=0.25)


def test_addition_replays_from_its_seed_and_differs_with_any_part_of_it() -> None:
    delta = torch.randn(1000) * 1e-4

    def moved(*seed: object) -> torch.Tensor:
        weight = torch.linspace(-1, 1, 1000).half()
        add_(weight, delta, *seed)
        return weight

    assert torch.equal(moved(0, 5, "w"), moved(0, 5, "w"))
    for other in ((1, 5, "w"), (0, 6, "w"), (0, 5, "v")):
        assert not torch.equal(moved(0, 5, "w"), moved(*other))


@pytest.mark.parametrize("dtype", HALF)
def test_rounding_does_not_depend_on_torchs_default_dtype(dtype: torch.dtype, default_dtype: Callable) -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(2))
    expected = stochastic_round(values, dtype, torch.Generator().manual_seed(3))
    with default_dtype(dtype):
        found = stochastic_round(values, dtype, torch.Generator().manual_seed(3))
    assert torch.equal(found, expected)


def test_float32_weights_are_added_to_exactly() -> None:
    weight, delta = torch.randn(100), torch.randn(100) * 1e-6
    expected = weight + delta
    add_(weight, delta, "any seed")
    assert torch.equal(weight, expected)
