"""FP8 and NF4 numbers against their definitions, and what a kept master owes to the weights that are made from it."""

from __future__ import annotations

import pytest
import torch

from workloads.models.quantized import kept, quantize
from workloads.models.scope import layout, views
from workloads.models.weights import load_model
from workloads.parameters.formats import fp8_rounded, fp8_rows, fp8_scale, nf4_levels, nf4_rounded, to_fp8
from workloads.parameters.requantized import Requantized

PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
"""arXiv 2305.14314, appendix E."""


def e4m3() -> list[float]:
    """Every number there is, by the format: 4 bits of exponent with bias 7, 3 of fraction; the last code is no number."""
    small = [fraction / 8 * 2.0**-6 for fraction in range(8)]
    large = [(1 + fraction / 8) * 2.0 ** (exponent - 7) for exponent in range(1, 16) for fraction in range(8)][:-1]
    return sorted({sign * value for value in (*small, *large) for sign in (1, -1)})


def test_fp8_is_the_nearest_number_of_the_format():
    grid = torch.tensor(e4m3(), dtype=torch.float64)
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 3
    scale = fp8_scale(values)
    assert scale == values.abs().max() / 448
    found = to_fp8(values, scale).double()
    exact = values.double() / scale.double()
    nearest = (exact[:, None] - grid).abs().min(-1).values
    assert ((found - exact).abs() <= nearest + 1e-5 * exact.abs()).all()
    assert torch.isin(found, grid).all() and found.abs().max() == 448
    assert to_fp8(values * 2, scale).float().abs().max() == 448


def test_a_row_becomes_what_it_would_become_alone():
    x = torch.randn(7, 33, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 3, 7)[:, None]
    x[3] = 0
    rounded = fp8_rows(x)
    for row, found in zip(x, rounded, strict=True):
        assert torch.equal(fp8_rows(row[None])[0], found)
        assert torch.allclose(found, row, rtol=2**-4, atol=float(row.abs().max()) / 448 * 2**-9)
    assert torch.equal(fp8_rows(x.half()).float().isfinite(), torch.ones_like(x, dtype=torch.bool))


def test_nf4_has_the_published_levels():
    assert torch.allclose(nf4_levels(), torch.tensor(PUBLISHED), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 64), (3, 50), (1, 7)])
def test_nf4_takes_the_nearest_level_of_each_block(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    flat, found = weight.flatten().tolist(), nf4_rounded(weight).flatten().tolist()
    for start in range(0, len(flat), 64):
        most = max(map(abs, flat[start : start + 64]))
        for value, rounded in zip(flat[start : start + 64], found[start : start + 64], strict=True):
            assert rounded == pytest.approx(min((level * most for level in PUBLISHED), key=lambda at: abs(at - value)), abs=1e-6)


@pytest.mark.parametrize("family", ["opt", "llama", "gpt2"])
@pytest.mark.parametrize("how", ["fp8", "bitsandbytes"])
def test_linear_layers_alone_are_rounded_and_merged_ones_by_one_scale(how, family, tiny_source):
    source = tiny_source(family)
    model, plain = load_model(source, torch.float32, "cpu"), load_model(source, torch.float32, "cpu")
    scales = quantize(model, source, how, products=False)
    linear, before = views(model, "lora"), views(plain, "lora")
    untouched = {name: tensor for name, tensor in model.named_parameters() if name not in linear}
    assert all(torch.equal(tensor, plain.get_parameter(name)) for name, tensor in untouched.items())
    for name, weight in linear.items():
        wanted = fp8_rounded(before[name], scales[name]) if how == "fp8" else nf4_rounded(before[name])
        assert torch.equal(weight, wanted) and not torch.equal(weight, before[name]), name
        if how == "fp8" and name.endswith("q_proj.weight"):
            merged = [name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
            assert {float(scales[other]) for other in merged} == {float(fp8_scale(*(before[other] for other in merged)))}


def test_the_live_weights_are_made_from_the_master_and_keep_the_bits_of_what_did_not_move(tiny_source):
    source = tiny_source("opt")
    model = load_model(source, torch.float32, "cpu")
    held = kept(model, source, "lora")
    name = next(iter(layout(model, "lora")))
    live, master = views(model, "lora")[name], held.masters[name]
    merged = [held.masters[name.replace("k_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
    loaded, scale, before = master.clone(), fp8_scale(*merged), live.clone()
    master[0] += 3e-4
    held.refresh()
    assert torch.equal(live, fp8_rounded(master, scale)) and torch.equal(live[1:], before[1:])
    assert 0 < (live[0] != before[0]).float().mean() < 1
    master.copy_(loaded)
    held.begin_again()
    assert torch.equal(live, before)
    assert held.nbytes() == sum(4 * weight.numel() for weight in views(model, "lora").values())


def test_small_changes_add_up_in_the_master():
    """Ten moves of a fortieth of a step of the grid each: none is lost for good, though most are not seen at once."""
    masters = {"w": torch.rand(64, 64, generator=torch.Generator().manual_seed(3)) * 0.8 + 1.0}
    live, scale = torch.empty(64, 64), torch.ones(())

    def write() -> None:
        live.copy_(fp8_rounded(masters["w"], scale))

    write()
    start, held = live.clone(), Requantized(masters, write, lambda _, rows: live[:rows].clone())
    assert held.facts() == dict.fromkeys(("requantized_fraction", "requantized_cosine", "requantized_gain"))
    for _ in range(10):
        masters["w"] += 2**-3 / 40
        held.refresh()
    facts = held.facts()
    assert facts["requantized_fraction"] == pytest.approx(1 / 40, abs=0.01)
    assert facts["requantized_gain"] == pytest.approx(1, abs=0.1)
    assert float((live - start).mean()) == pytest.approx(10 * 2**-3 / 40, rel=0.1)
