"""Packed weights: the product is that of the weight as it stands, whoever changed it and through what view."""

import pytest
import torch
import torch.nn.functional as F

from bench.executors.vllm.cpu_products import PackedProducts
from bench.onednn import packable


def linear(dtype=torch.float32):
    """A layer as vLLM leaves it on a CPU."""
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


def test_a_weight_without_a_version_stays_as_it_is():
    with torch.inference_mode():
        assert not packable(torch.ones(4, 4))
