"""A model's head that computes no more logits than a loss needs.

It takes the head's place inside the model, and the model's own forward runs around it: what a family does to hidden states before
its head and to logits after it (soft caps, scales) is done by the family's own code, to exactly the logits that are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from baselines.eager.modules import Current, ProbeLinear
from baselines.eager.states import AdapterStates
from workloads.models.scope import is_conv1d

Want = Callable[["Head", torch.Tensor], torch.Tensor]
"""(head, hidden states [rows, width, dim]) to logits of any shape."""


class Head(nn.Module):
    """inner: the model's own head, wrapped for its probes where it is in scope. used: whether the model has called it lately."""

    def __init__(self, inner: Any, current: Current) -> None:
        super().__init__()
        self.inner, self._current, self.used = inner, current, False
        self._want: Want | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.used = True
        return self.inner(hidden) if self._want is None else self._want(self, hidden)

    @contextmanager
    def asked(self, want: Want) -> Iterator[None]:
        """While the model runs, this is what is made of its hidden states."""
        self._want, self.used = want, False
        try:
            yield
        finally:
            self._want = None

    @property
    def weight(self) -> torch.Tensor:
        """For a model that reads it."""
        return self.own.weight

    @property
    def own(self) -> Any:
        """The head as the model made it."""
        return self.inner.inner if isinstance(self.inner, ProbeLinear) else self.inner

    @property
    def by_rows(self) -> bool:
        """Whether a label's logit is a product with its row of a matrix, and so can be had without the others."""
        return is_conv1d(self.own) or (isinstance(self.own, nn.Linear) and type(self.own).forward is nn.Linear.forward)

    def labels(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of one token each: hidden [P, options, dim], tokens [options] -> [P, options], float32 if the head has rows."""
        if not self.by_rows:
            return self.inner(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1).gather(2, _each(tokens, len(hidden)))[..., 0]
        weight = self.own.weight.t() if is_conv1d(self.own) else self.own.weight
        logits = torch.einsum("pod,od->po", hidden.float(), weight[tokens].float())
        held = self._current.states
        states = held if isinstance(self.inner, ProbeLinear) and isinstance(held, AdapterStates) else None
        name, bias = (self.inner.weight_name, self.inner.bias_name) if isinstance(self.inner, ProbeLinear) else (None, None)
        if states is not None and bias is not None:
            logits = logits + states.values(bias)[:, tokens].float()
        elif self.own.bias is not None:
            logits = logits + self.own.bias[tokens].float()
        if states is None or name is None:
            return logits
        shrunk, rows = states.shrink(name, hidden), states.head_rows(name, tokens)
        return logits + torch.einsum("pok,pok->po", shrunk.float(), rows.float())


def _each(tokens: torch.Tensor, probes: int) -> torch.Tensor:
    return tokens.expand(probes, -1)[..., None]


def put_head(model: Any, current: Current) -> Head | None:
    """A Head in the place of the model's own; None where transformers finds none."""
    inner = model.get_output_embeddings()
    path = next((path for path, module in model.named_modules() if inner is not None and module is inner), None)
    if path is None:
        return None
    head = Head(inner, current)
    model.set_submodule(path, head)
    return head
