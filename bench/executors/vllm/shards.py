"""Which part of every tensor a rank of vLLM's tensor parallelism holds: vLLM's layers know, by what they are.

Column-parallel layers share out rows (of merged ones each part's own, and a key or value head may be on several ranks),
row-parallel layers share out columns, the vocabulary is shared out by rows; everything else is whole on every rank.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from bench.executors.vllm.views import named_parts
from workloads.directions import Layout
from workloads.parameters.shards import Shard


def shards_of(model: nn.Module, shapes: Layout) -> dict[str, Shard]:
    """Of every parameter of the full layout, by canonical name."""
    modules, found = dict(model.named_modules()), dict[str, Shard]()
    for path, leaf, index, name, _ in named_parts(model):
        if name in shapes:
            found[name] = _shard(modules[path], index, shapes[name], leaf)
    return found


def _shard(module: Any, index: int, shape: tuple[int, ...], leaf: str) -> Shard:
    from vllm.model_executor.layers import linear
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    layer = getattr(module, "base_layer", module)
    if isinstance(layer, linear.QKVParallelLinear):
        heads, at = (
            (layer.num_heads, layer.tp_rank) if index == 0 else (layer.num_kv_heads, layer.tp_rank // layer.num_kv_head_replicas)
        )
        size = heads * layer.head_size
        return Shard(0, at * size, size, shape[0])
    if isinstance(layer, linear.ColumnParallelLinear):
        size = shape[0] // layer.tp_size
        return Shard(0, layer.tp_rank * size, size, shape[0])
    if isinstance(layer, linear.RowParallelLinear) and leaf == "weight":
        size = shape[1] // layer.tp_size
        return Shard(1, layer.tp_rank * size, size, shape[1])
    if isinstance(layer, VocabParallelEmbedding):
        held = layer.shard_indices
        return Shard(0, held.org_vocab_start_index, held.num_org_elements, shape[0])
    return Shard(0, 0, shape[0], shape[0])


def ranks() -> int:
    """How many processes share the model that runs in this one."""
    from vllm.distributed import get_tensor_model_parallel_world_size

    return int(get_tensor_model_parallel_world_size())


def recording(device: torch.device) -> AbstractContextManager[Any]:
    """Around the recording of graphs: ranks that reduce over memory of their own have to register it."""
    if ranks() == 1:
        return nullcontext()
    from vllm.distributed.parallel_state import graph_capture

    return graph_capture(device)


def head_rows(hidden: torch.Tensor, head: Any, tokens: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Products of hidden states [n, hidden] with one row each of a head, its bias added: float32 [n, 1]. A rank that does not
    hold a token's row adds nothing to the sum over the ranks."""
    at, mine = tokens, None
    if ranks() > 1:
        held = head.shard_indices
        at = tokens - held.org_vocab_start_index
        mine = (at >= 0) & (at < held.num_org_elements)
        at = torch.where(mine, at, 0)
    found = (hidden.float() * head.weight[at].float()).sum(-1)
    found = found if bias is None else found + bias[at].float()
    if mine is not None:
        from vllm.distributed import tensor_model_parallel_all_reduce

        found = tensor_model_parallel_all_reduce(found * mine)
    return found[:, None]


def from_first(losses: torch.Tensor) -> torch.Tensor:
    """The losses as rank 0 has them, for no rank may move by others."""
    if ranks() == 1:
        return losses
    from vllm.distributed import get_tp_group

    return get_tp_group().broadcast(losses.clone(), src=0)
