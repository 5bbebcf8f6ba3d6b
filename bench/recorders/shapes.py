"""The matrix products of a model's forward pass, from its configuration alone: what counters and roofline multiply out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from workloads.models.weights import skeleton

if TYPE_CHECKING:
    from bench.data import Batch, ModelSource


@dataclass(frozen=True)
class ModelShapes:
    """Linear layers of the body, (out, in) -> how many; the head's (vocabulary, in); layers and width of attention."""

    linears: dict[tuple[int, int], int]
    head: tuple[int, int]
    layers: int
    attention_width: int

    @classmethod
    def of(cls, source: ModelSource) -> ModelShapes:
        """No weights are made or read."""
        model: Any = skeleton(source)
        config = model.config
        head = model.get_output_embeddings()
        body = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        heads = config.num_attention_heads
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
        linears = Counter((m.out_features, m.in_features) for m in body)
        return cls(dict(linears), tuple(head.weight.shape), config.num_hidden_layers, width)

    @property
    def linear_elements(self) -> int:
        """Weights of the body's linear layers."""
        return sum(out * inp * count for (out, inp), count in self.linears.items())

    def flops(self, tokens: int, rows: int, head_rows: int) -> dict[str, int]:
        """Multiplications and additions of forward passes over `tokens` in `rows` sequences and `head_rows` products with a
        row of the head. Attention is causal and takes every row at the mean length, exact where rows are padded to one."""
        attention = 2 * self.layers * self.attention_width * tokens * (tokens + rows) // max(rows, 1)
        parts = {"linear": 2 * self.linear_elements * tokens, "attention": attention, "head": 2 * self.head[1] * head_rows}
        return parts | {"total": sum(parts.values())}


@dataclass(frozen=True)
class Required:
    """The least a step must score, whatever the executor: each prompt once per probe, and its options from there.

    head_rows    products of a position with a row of the LM head
    words        different rows of the head among them
    """

    tokens: int
    rows: int
    head_rows: int
    words: int

    @classmethod
    def of(cls, batch: Batch, probes: int) -> Required:
        """The last token of an option is only predicted, so one-token options cost no token of their own."""
        continued = sum(len(option) - 1 for example in batch for option in example.options)
        prompts = sum(len(example.prompt) for example in batch)
        scored = [token for example in batch for option in example.options for token in option]
        return cls(probes * (prompts + continued), probes * len(batch), probes * len(scored), len(set(scored)))
