"""Adapter slots hold what they are meant to, in float16 too, at every rank and eps: against the state in float64."""

from __future__ import annotations

import pytest
import torch

from bench.api import Direction
from bench.executors.vllm.slots import AdapterSlots
from workloads.directions import Drawn, draw

LAYOUT = {"a": (48, 32), "b": (24, 40)}


def empty(width: int, dtype: torch.dtype, slots: int = 2) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Storage as vLLM allocates it."""
    return {
        name: (torch.zeros(slots, 1, width, inp, dtype=dtype), torch.zeros(slots, 1, out, width, dtype=dtype))
        for name, (out, inp) in LAYOUT.items()
    }


def relative_error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def product(slices: dict[str, tuple[torch.Tensor, torch.Tensor]], slot: int, name: str) -> torch.Tensor:
    a, b = slices[name]
    return b[slot, 0].double() @ a[slot, 0].double()


def z(drawn: Drawn, name: str) -> torch.Tensor:
    return drawn.scale * drawn.u(name).double() @ drawn.vt(name).double()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("eps", [1e-5, 1e-4, 1e-3, 1e-1])
@pytest.mark.parametrize(("kind", "rank"), [("lowrank", 1), ("lowrank", 256), ("factorized", 8), ("factorized", 512)])
def test_a_probe_is_as_exact_as_its_type_at_every_rank_and_eps(kind: str, rank: int, eps: float, dtype: torch.dtype) -> None:
    """Rounding U costs at most half a unit in the last place; a factor among float16's subnormals would cost far more."""
    accumulates = kind == "lowrank"
    slices = empty(rank * (2 if accumulates else 1), dtype)
    slots, drawn = AdapterSlots(slices, LAYOUT, rank, accumulates), draw(Direction(kind, 0, 3, 0, rank), LAYOUT, "cpu", dtype)  # type: ignore[arg-type]
    for slot, shift in enumerate((eps, -eps)):
        slots.write(slot, drawn, shift, None)
        for name in LAYOUT:
            assert relative_error(product(slices, slot, name), shift * z(drawn, name)) <= torch.finfo(dtype).eps / 2
    for a, b in slices.values():
        for factor in (a[:, :, -rank:], b[..., -rank:]):
            assert (factor.abs() >= torch.finfo(dtype).smallest_normal).double().mean() > 0.85


def test_the_accumulated_state_stands_beside_the_probe_and_follows_every_change() -> None:
    """Writes of other eps, of no shift and of another V, in one slot after the other."""
    slices = empty(4, torch.float16, slots=1)
    slots = AdapterSlots(slices, LAYOUT, 2, accumulates=True)
    held = torch.randn(48 + 24, 2, generator=torch.Generator().manual_seed(0)) * 1e-5
    for step, shift, accumulated in [
        (0, 1e-3, None),
        (1, 1e-3, held),
        (1, 0.0, held),
        (2, 1e-5, held),
        (7, 1e-3, held),
        (8, -1e-3, None),
    ]:
        drawn = draw(Direction("lowrank", 0, step, 0, 2, 5), LAYOUT, "cpu", torch.float16)
        slots.write(0, drawn, shift, accumulated)
        for name, rows in (("a", slice(0, 48)), ("b", slice(48, 72))):
            truth = shift * z(drawn, name)
            if accumulated is not None:
                truth = truth + accumulated[rows].double() @ drawn.vt(name).double()
            assert relative_error(product(slices, 0, name), truth) <= 2**-11, (step, shift)
