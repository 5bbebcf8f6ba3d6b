"""The GPU's LoRA kernels, there or else in Triton's interpreter, against float64: several slices, slots, ranks, ragged edges."""

from __future__ import annotations

from collections.abc import Callable

PROGRAM = """
import sys, torch
torch.set_default_device(sys.argv[1])
from bench.executors.vllm.triton_lora import lora_linear

def agree(name, rank, slots, *outs):
    dtype = getattr(torch, name)
    tokens, inner, columns = 75, 1100, sum(outs)
    torch.manual_seed(0)
    mapping = torch.repeat_interleave(torch.arange(slots), 64 // slots).to(torch.int32)
    mapping = torch.cat([mapping, torch.full((90 - len(mapping),), -1, dtype=torch.int32)])  # tokens of no slot; longer than x
    x = torch.randn(tokens, inner + 4).to(dtype)[:, :inner]
    a = [(torch.randn(slots, 1, rank, inner) / inner**0.5).to(dtype) for _ in outs]
    b = [torch.randn(slots, 1, out, rank).to(dtype) for out in outs]
    start = torch.randn(tokens, columns + 5).to(dtype)
    y = start.clone()
    lora_linear(y[:, :columns], x, a, b, mapping, 0.5)
    truth = start.double()
    for token in range(tokens):
        slot = int(mapping[token])
        if slot >= 0:
            parts = [q[slot, 0].double() @ (p[slot, 0].double() @ x[token].double()) for p, q in zip(a, b)]
            truth[token, :columns] += 0.5 * torch.cat(parts)
    error = (y.double() - truth).norm() / truth.norm()
    assert error < {torch.float16: 1e-3, torch.float32: 1e-5 if sys.argv[1] == "cpu" else 2e-3}[dtype], error
    untouched = mapping[:tokens] < 0
    assert untouched.any() and torch.equal(y[untouched], start[untouched]) and torch.equal(y[:, columns:], start[:, columns:])
    assert not torch.equal(y[~untouched], start[~untouched])

half, single = "float16", "float32"
for case in ((half, 8, 2, 300), (half, 8, 2, 48, 48, 48), (half, 20, 6, 40, 130), (half, 150, 2, 90), (single, 1, 2, 64, 16, 30)):
    agree(*case)
"""

WRAPPER = """
import numpy as np, torch
from vllm.lora.ops.triton_ops.lora_kernel_metadata import LoRAKernelMeta
from bench.executors.vllm.lora_cuda import TritonLora
from bench.executors.vllm.lora_meta import fill

torch.manual_seed(0)
wrapper = TritonLora.__new__(TritonLora)  # vLLM builds one only where Triton has a GPU
wrapper.token_mapping_meta = LoRAKernelMeta.make(2, 64, "cpu")
x, outs = torch.randn(20, 48).half(), (16, 16, 16)
a, b = tuple(torch.randn(2, 1, 8, 48).half() / 7 for _ in outs), tuple(torch.randn(2, 1, 16, 8).half() for _ in outs)
for slots in ([0] * 12 + [1] * 8, [-1] * 20, [1] * 20, [-1] * 5 + [0] * 15):
    fill(wrapper.token_mapping_meta, np.array(slots, dtype=np.int32), torch.from_numpy)
    y = torch.zeros(20, 48).half()
    wrapper.add_lora_linear(y, x, a, b, 1.0, outs)
    truth = torch.zeros(20, 48).double()
    for token, slot in enumerate(slots):
        if slot >= 0:
            truth[token] = torch.cat([q[slot, 0].double() @ (p[slot, 0].double() @ x[token].double()) for p, q in zip(a, b)])
    assert (y.double() - truth).abs().max() < 2e-3 * max(1.0, truth.abs().max()), slots
"""


def test_the_lora_kernels_agree_with_float64(run_kernels: Callable[..., None]) -> None:
    run_kernels(PROGRAM)


def test_vllms_wrapper_with_our_kernels_follows_each_batch(run_kernels: Callable[..., None]) -> None:
    """The map of an earlier batch adds nothing to one without adapters."""
    run_kernels(WRAPPER, device="cpu")
