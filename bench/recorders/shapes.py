"""The matrix products of a model's forward pass, from its configuration alone: what counters and roofline multiply out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bench.data import Batch, minibatches
from workloads.models.weights import skeleton
from workloads.tasks.ragged import tree_rows

if TYPE_CHECKING:
    from bench.data import ModelSource


@dataclass(frozen=True)
class ModelShapes:
    """Linear layers of the body, (out, in) -> how many; the head's (vocabulary, in); layers and width of attention.

    unkept    weights of the last layer's linear layers that make neither keys nor values: a position nobody reads needs none
    """

    linears: dict[tuple[int, int], int]
    head: tuple[int, int]
    layers: int
    attention_width: int
    unkept: int

    @classmethod
    def of(cls, source: ModelSource) -> ModelShapes:
        """No weights are made or read."""
        model: Any = skeleton(source)
        config = model.config
        head = model.get_output_embeddings()
        body = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        linears = Counter((m.out_features, m.in_features) for m in body)
        last = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)[-1]
        inside = sum(m.weight.numel() for m in last.modules() if isinstance(m, torch.nn.Linear))
        kept = 2 * (getattr(config, "num_key_value_heads", None) or heads) * size * config.hidden_size
        return cls(dict(linears), tuple(head.weight.shape), config.num_hidden_layers, heads * size, inside - kept)

    @property
    def linear_elements(self) -> int:
        """Weights of the body's linear layers."""
        return sum(out * inp * count for (out, inp), count in self.linears.items())

    def flops(self, tokens: int, rows: int, head_rows: int, read: int | None = None) -> dict[str, int]:
        """Multiplications and additions of forward passes over `tokens` in `rows` sequences and `head_rows` products with a
        row of the head; only `read` of the tokens, at their rows' ends, take the last layer whole (None: all).

        Attention is causal and takes every row at the mean length, exact where rows are padded to one."""
        layer = 2 * self.attention_width * tokens * (tokens + rows) // max(rows, 1)
        linear, last = 2 * self.linear_elements * tokens, layer
        if read is not None:
            linear -= 2 * self.unkept * (tokens - read)
            last = 4 * self.attention_width * read * tokens // max(rows, 1)
        parts = {"linear": linear, "attention": layer * (self.layers - 1) + last, "head": 2 * self.head[1] * head_rows}
        return parts | {"total": sum(parts.values())}


@dataclass(frozen=True)
class Required:
    """The least a step must score, whatever the executor: each distinct prefix of its rows once per probe.

    read         tokens whose next one is scored: the others need no more of the last layer than keys and values
    head_rows    products of a position with a row of the LM head
    words        different rows of the head among them
    """

    tokens: int
    read: int
    rows: int
    head_rows: int
    words: int

    def flops(self, shapes: ModelShapes) -> dict[str, int]:
        return shapes.flops(self.tokens, self.rows, self.head_rows, self.read)

    @classmethod
    def of(cls, batch: Batch, probes: int) -> Required:
        """The last token of an option is only predicted, so one-token options cost no token of their own. Every minibatch of a
        step that accumulates stands for itself."""
        trees = [tree_rows(part, 1) for part in minibatches(batch)]
        tokens, read = sum(len(tree.tokens) for tree in trees), sum(len(tree.wanted) for tree in trees)
        scored = [token for example in batch for option in example.options for token in option]
        return cls(probes * tokens, probes * read, probes * len(batch), probes * len(scored), len(set(scored)))


def made(shapes: ModelShapes, work: Mapping[str, int]) -> dict[str, int]:
    """`ModelShapes.flops` of a step by the counts of `Executor.work`."""
    return shapes.flops(work["tokens_scored"], work["rows"], work["head_rows"], work.get("tokens_read"))
