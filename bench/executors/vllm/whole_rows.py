"""Attention for whole rows: straight from the projections, without a KV pool.

A score is one prefill. Where every row of a pass is whole and nothing reads its keys and values later, they are not written to
vLLM's pool and read back, and nobody plans the work of the pass. Every other pass takes vLLM's own way. What attends is our
Triton kernel on a GPU, and PyTorch's attention on a CPU (`cpu_rows`).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from bench.executors.vllm.packing import Packed
from bench.executors.vllm.switch import Switch
from bench.executors.vllm.triton_attention import WIDEST, packed_attention
from workloads.tasks.ragged import Ints

NONE = (-1, (-1, -1), None)
"""How vLLM's implementations say that a layer has no window."""


class Kernel(Protocol):
    """widest: head that it takes, or None for any; goes_on: whether a row may go on from the tokens of others."""

    widest: int | None
    goes_on: bool

    def sent(self, packed: Packed) -> list[Ints]:
        """What it has to know of a batch on the device."""

    def take(self, packed: Packed, sent: list[torch.Tensor]) -> None:
        """The batch of the pass that comes, with what of it is on the device now."""

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, output: torch.Tensor) -> None:
        """query, output [tokens, heads, head]; key, value [tokens, KV heads, head]: causal within each row, and what it goes on
        from."""


class TritonRows:
    """first: int32 [most tokens], the first token of each token's row; read on the device."""

    widest: int | None = WIDEST
    goes_on = False

    def __init__(self, most: int, device: torch.device) -> None:
        self.first = torch.zeros(most, dtype=torch.int32, device=device)

    def sent(self, packed: Packed) -> list[Ints]:
        return [packed.first()]

    def take(self, packed: Packed, sent: list[torch.Tensor]) -> None:
        self.first[: len(sent[0])].copy_(sent[0])

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, output: torch.Tensor) -> None:
        packed_attention(query, key, value, self.first, scale, output)


class WholeRows(Switch):
    """A runner's layers that take whole rows. taken: whether they do."""

    def __init__(self, runner: Any, kernel: Kernel) -> None:
        self.kernel = kernel
        layers = runner.compilation_config.static_forward_context.values()
        found = [layer for layer in layers if hasattr(layer, "impl")]
        self.taken = bool(found) and all(is_plain(layer.impl, kernel.widest) for layer in found)
        if self.taken:  # all or none: a model's passes have one layout
            for layer in found:
                layer.impl = _Attention(layer.impl, self)


class _Attention:
    """Stands where vLLM's implementation of a layer's attention stands, and has all of its attributes."""

    def __init__(self, own: Any, rows: WholeRows) -> None:
        self._own, self._rows = own, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def do_kv_cache_update(self, *given: Any) -> None:
        if not self._rows.on:
            self._own.do_kv_cache_update(*given)

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """query, output [tokens, heads, head]; key, value [tokens, KV heads, head]."""
        if not self._rows.on:
            more = (output_scale, output_block_scale)
            return self._own.forward(layer, query, key, value, kv_cache, attn_metadata, output, *more)
        self._rows.kernel(query, key, value, self._own.scale, output)
        return output


def is_plain(impl: Any, widest: int | None) -> bool:
    """Whether a layer's attention is causal softmax(scale q k) v and nothing more, over heads that the kernel takes."""
    bent = getattr(impl, "alibi_slopes", None) is not None or getattr(impl, "sinks", None) is not None
    bent = bent or bool(getattr(impl, "logits_soft_cap", None)) or getattr(impl, "sliding_window", None) not in NONE
    shared = getattr(impl, "kv_sharing_target_layer_name", None) is not None
    plain = getattr(impl, "attn_type", None) == "decoder" and not bent and not shared
    return plain and (widest is None or impl.head_size <= widest)


def share_kv_pool(runner: Any) -> None:
    """One layer's KV pool for all layers, where nothing reads a layer's keys and values after the pass that wrote them.

    vLLM looks a layer's pool up when the layer runs, also between piecewise graphs; the other pools are freed.
    """
    caches = runner.kv_caches
    if len({(cache.shape, cache.dtype) for cache in caches}) > 1:
        return  # layers of different kinds keep their own
    for layer in runner.compilation_config.static_forward_context.values():
        if isinstance(getattr(layer, "kv_cache", None), torch.Tensor):
            layer.kv_cache = caches[0]
    caches[:] = [caches[0]] * len(caches)
