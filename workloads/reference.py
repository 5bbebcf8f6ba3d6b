"""What the losses of a probe plan should be: a plain Hugging Face model, weights written out, nothing clever.

The yardstick of the correctness gate and of the tests; it shares no scoring code with any executor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bench.api import Batch, Probe
from bench.config import RunSpec
from workloads.directions import draw
from workloads.models import ModelSource
from workloads.weights import layout, load_model


@torch.inference_mode()
def reference_losses(
    source: ModelSource,
    spec: RunSpec,
    batch: Batch,
    probes: Sequence[Probe],
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Losses [n_probes], float32 on the CPU. Weights and directions are the spec's; `dtype`: another one for the arithmetic."""
    drawn_in: torch.dtype = getattr(torch, spec.dtype)
    device = spec.device
    model = load_model(source, drawn_in, device).to(dtype or drawn_in)
    weights = {name: model.get_parameter(name) for name in layout(model, spec.scope)}
    start = {name: weight.clone() for name, weight in weights.items()}
    losses = []
    for probe in probes:
        drawn = draw(probe.direction, {name: tuple(w.shape) for name, w in weights.items()}, device, drawn_in)
        for name, weight in weights.items():
            weight.copy_(start[name].float() + probe.shift * drawn.delta(name))
        losses.append(_loss(model, batch))
    return torch.stack(losses).cpu()


def _loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Mean over the examples of the cross-entropy over the options' mean log-probs, one full row per option, float32."""
    total = torch.zeros((), dtype=torch.float64)
    for example in batch:
        scores = torch.stack([_option_logprob(model, example.prompt, option) for option in example.options])
        total += -scores.double().log_softmax(0)[example.label].cpu()
    return (total / len(batch)).float()


def _option_logprob(model: nn.Module, prompt: tuple[int, ...], option: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([prompt + option], device=model.device)
    logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
    return torch.stack([logprobs[len(prompt) - 1 + j, token] for j, token in enumerate(option)]).mean()
