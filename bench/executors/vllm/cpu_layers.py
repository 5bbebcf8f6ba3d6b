"""Activations, norms and rotary embeddings of vLLM's layers, each written into the tensor it is given.

On most CPUs vLLM computes these by its own PyTorch code and asks for the operators' names only; they are whole all the same.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from bench.executors.vllm.cpu_library import operator

GATED = "(Tensor(a!) out, Tensor x) -> ()"


def activate_in_place(model: torch.nn.Module) -> None:
    """Let a model's ReLUs overwrite what they are given: the product before them, which nobody else reads."""
    for module in model.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = True


@operator(f"silu_and_mul{GATED}")
def silu_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    """out [..., d] = silu(x[..., :d]) * x[..., d:]."""
    gate, up = x.chunk(2, dim=-1)
    torch.mul(F.silu(gate), up, out=out)


@operator(f"mul_and_silu{GATED}")
def mul_and_silu(out: torch.Tensor, x: torch.Tensor) -> None:
    """out [..., d] = x[..., :d] * silu(x[..., d:])."""
    up, gate = x.chunk(2, dim=-1)
    torch.mul(F.silu(gate), up, out=out)


@operator(f"gelu_and_mul{GATED}")
def gelu_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    """out [..., d] = gelu(x[..., :d]) * x[..., d:]."""
    gate, up = x.chunk(2, dim=-1)
    torch.mul(F.gelu(gate), up, out=out)


@operator(f"gelu_tanh_and_mul{GATED}")
def gelu_tanh_and_mul(out: torch.Tensor, x: torch.Tensor) -> None:
    """As gelu_and_mul, with the approximation by tanh."""
    gate, up = x.chunk(2, dim=-1)
    torch.mul(F.gelu(gate, approximate="tanh"), up, out=out)


@operator("fatrelu_and_mul(Tensor(a!) out, Tensor x, float threshold) -> ()")
def fatrelu_and_mul(out: torch.Tensor, x: torch.Tensor, threshold: float) -> None:
    """out [..., d] = x[..., d:] times x[..., :d] where that is above the threshold, else 0."""
    gate, up = x.chunk(2, dim=-1)
    torch.mul(F.threshold(gate, threshold, 0.0), up, out=out)


@operator("silu_and_mul_with_clamp(Tensor(a!) out, Tensor x, float limit, float alpha, float beta) -> ()")
def silu_and_mul_with_clamp(out: torch.Tensor, x: torch.Tensor, limit: float, alpha: float, beta: float) -> None:
    """out [..., d] = g sigmoid(alpha g) (u + beta): g = x[..., :d] up to the limit, u = x[..., d:] between the limits."""
    gate, up = x.chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    torch.mul(gate * torch.sigmoid(alpha * gate), up + beta, out=out)


@operator("situ_and_mul(Tensor(a!) out, Tensor x, float beta, float linear) -> ()")
def situ_and_mul(out: torch.Tensor, x: torch.Tensor, beta: float, linear: float) -> None:
    """out [..., d] = beta tanh(g / beta) sigmoid(g) u, in float32 at least: g = x[..., :d], u = x[..., d:]; where linear > 0,
    linear tanh(u / linear) stands for u."""
    gate, up = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=-1)
    up = linear * torch.tanh(up / linear) if linear > 0 else up
    out.copy_(beta * torch.tanh(gate / beta) * torch.sigmoid(gate) * up)


@operator("swigluoai_and_mul(Tensor(a!) out, Tensor x, float alpha=1.702, float limit=7.0) -> ()")
def swigluoai_and_mul(out: torch.Tensor, x: torch.Tensor, alpha: float = 1.702, limit: float = 7.0) -> None:
    """As silu_and_mul_with_clamp with beta 1, gate and up standing in turn: x[..., 0::2] and x[..., 1::2]."""
    gate, up = x[..., ::2].clamp(max=limit), x[..., 1::2].clamp(-limit, limit)
    torch.mul(gate * torch.sigmoid(alpha * gate), up + 1, out=out)


@operator(f"gelu_tanh{GATED}")
def gelu_tanh(out: torch.Tensor, x: torch.Tensor) -> None:
    """gelu by its approximation with tanh."""
    out.copy_(F.gelu(x, approximate="tanh"))


@operator(f"gelu_new{GATED}")
def gelu_new(out: torch.Tensor, x: torch.Tensor) -> None:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, as GPT-2 has it."""
    out.copy_(0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x.pow(3)))))


@operator(f"gelu_fast{GATED}")
def gelu_fast(out: torch.Tensor, x: torch.Tensor) -> None:
    """The same with the constant in ten digits."""
    out.copy_(0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x))))


@operator(f"gelu_quick{GATED}")
def gelu_quick(out: torch.Tensor, x: torch.Tensor) -> None:
    """x sigmoid(1.702 x)."""
    torch.mul(x, torch.sigmoid(1.702 * x), out=out)


@operator(f"relu_squared{GATED}")
def relu_squared(out: torch.Tensor, x: torch.Tensor) -> None:
    """The square of relu(x)."""
    out.copy_(F.relu(x).square())


@operator("rms_norm(Tensor(a!) out, Tensor x, Tensor? weight, float eps) -> ()")
def rms_norm(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> None:
    """out = weight x / sqrt(mean(x^2) + eps) over the last axis, in float32."""
    wide = x.float()
    normed = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    out.copy_(normed if weight is None else normed * weight)


@operator("fused_add_rms_norm(Tensor(a!) x, Tensor(b!) residual, Tensor? weight, float eps) -> ()")
def fused_add_rms_norm(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, eps: float) -> None:
    """residual += x, then x = rms_norm(residual)."""
    residual.add_(x)
    rms_norm(x, residual, weight, eps)


@operator(
    "rotary_embedding(Tensor positions, Tensor(a!) query, Tensor(b!)? key, int head, Tensor cos_sin, bool neox,"
    " int offset=0, bool inverse=False) -> ()"
)
def rotary_embedding(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    head: int,
    cos_sin: torch.Tensor,
    neox: bool,
    offset: int = 0,
    inverse: bool = False,
) -> None:
    """Rotate query and key [tokens, heads * head] in place, from place `offset` of each head on; `inverse`: back.

    cos_sin [positions, rotary], cosines before sines. neox: the halves are the pairs; else neighbours are.
    """
    cos, sin = cos_sin[positions.flatten()].to(query.dtype)[:, None].chunk(2, dim=-1)
    sin = -sin if inverse else sin
    half = cos.size(-1)
    for tensor in (query, key):
        if tensor is None:
            continue
        x = tensor.view(len(cos), -1, head)[..., offset : offset + 2 * half]
        one, two = (x[..., :half], x[..., half:]) if neox else (x[..., ::2], x[..., 1::2])
        rotated = one * cos - two * sin, two * cos + one * sin
        one.copy_(rotated[0])
        two.copy_(rotated[1])
