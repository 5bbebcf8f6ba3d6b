"""Packed weights: the product is that of the weight as it stands, whoever changed it and through what view."""

import pytest
import torch
import torch.nn.functional as F

from bench import onednn
from bench.executors.vllm.cpu_products import PackedProducts
from bench.onednn import packable


@torch.inference_mode(False)
def linear(dtype=torch.float32):
    """A layer as vLLM leaves it on a CPU: made outside of inference mode, or its weight could not be packed."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(40, 24).to(dtype).requires_grad_(False)
    layer.cpu_linear = F.linear
    return layer


def product(layer, x, bias=True):
    return layer.cpu_linear(x, layer.weight, layer.bias if bias else None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 3, 130])
@torch.inference_mode()
def test_products_are_those_of_the_weight(dtype, tokens):
    layer, x = linear(dtype), torch.randn(tokens, 40).to(dtype)
    products = PackedProducts(torch.nn.Sequential(layer))
    for bias in (True, False):
        own = product(layer, x, bias)
        with products.during(True):
            packed = product(layer, x, bias)
        assert torch.allclose(packed.float(), own.float(), rtol=2 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)
    assert dtype != torch.float32 or packable(layer.weight)
    assert products.nbytes() == (24 * 40 * dtype.itemsize if packable(layer.weight) else 0)


CHANGES = {
    "in place": lambda weight: weight.add_(1),
    "a part": lambda weight: weight.detach()[3:7].copy_(torch.ones(4, 40)),
    "many at once": lambda weight: torch._foreach_mul_([weight.detach()[:2]], 3.0),
    "as the output": lambda weight: torch.add(weight, 1, out=weight.detach()),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.inference_mode()
def test_a_changed_weight_is_packed_again(change):
    layer, x = linear(), torch.randn(5, 40)
    products = PackedProducts(torch.nn.Sequential(layer))
    with products.during(True):
        before = product(layer, x)
        CHANGES[change](layer.weight)
        after = product(layer, x)
    assert not torch.equal(before, after) and torch.allclose(after, F.linear(x, layer.weight, layer.bias), atol=1e-5)


@torch.inference_mode()
def test_bits_do_not_depend_on_what_was_multiplied_before():
    x = torch.randn(37, 40)
    fresh, used = linear(), linear()
    products = [PackedProducts(torch.nn.Sequential(layer)) for layer in (fresh, used)]
    with products[1].during(True):
        for tokens in (500, 3):
            product(used, torch.randn(tokens, 40))
        used.weight.add_(1).sub_(1)
        fresh.weight.add_(1).sub_(1)
        found = product(used, x)
    with products[0].during(True):
        assert torch.equal(product(fresh, x), found)


@torch.inference_mode()
def test_two_halves_alike_are_multiplied_once_and_only_at_the_start_of_a_pass(monkeypatch):
    layers, counts = [linear(), linear()], []
    products, made = PackedProducts(torch.nn.Sequential(*layers)), onednn.product
    monkeypatch.setattr(onednn, "product", lambda x, *more: counts.append(len(x)) or made(x, *more))
    x = torch.randn(30, 40)
    for twice, expected in ((x.repeat(2, 1), [30, 60]), (torch.randn(60, 40), [60, 60]), (x[:1], [1, 1]), (x[:3], [3, 3])):
        counts.clear()
        with products.during(True):
            found = [product(layer, twice) for layer in layers]
        assert counts == expected
        for layer, part in zip(layers, found, strict=True):
            assert torch.allclose(part, F.linear(twice, layer.weight, layer.bias), atol=1e-5)


def test_a_weight_without_a_version_stays_as_it_is():
    with torch.inference_mode():
        assert not packable(torch.ones(4, 4))
