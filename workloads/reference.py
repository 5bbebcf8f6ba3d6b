"""What the losses of a probe plan should be: a plain Hugging Face model, its weights written out, one row at a time.

The yardstick of the correctness gate and of the tests. It shares no scoring code with any executor: no padding, no
batching, no adapters, the loss spelled out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from bench.api import Probe
from bench.config import RunSpec
from bench.data import Batch, ModelSource, minibatches
from workloads.directions import draw
from workloads.models.adapter import FLAT, SCOPE, Adapter
from workloads.models.checkpoint import running
from workloads.models.quantized import quantize
from workloads.models.scope import layout, transposed, views
from workloads.models.weights import load_model


@torch.inference_mode()
def reference_losses(
    source: ModelSource,
    spec: RunSpec,
    batch: Batch,
    probes: Sequence[Probe],
    *,
    arithmetic: torch.dtype | None = None,
    products: bool = False,
) -> torch.Tensor:
    """Losses [n_probes], float32 (float64 for that arithmetic), on the CPU; computed on the device of the spec.

    Weights and directions are drawn in the spec's dtype (those of an adapter in float32); the forward runs in it too unless
    `arithmetic` names a wider one. Quantised weights are rounded first; products: the inputs of FP8 layers are rounded too.
    """
    dtype = getattr(torch, spec.dtype)
    model = load_model(source, dtype, spec.device)
    if spec.quantization != "none":
        quantize(model, source, spec.quantization, products=products)
    model.to(arithmetic or dtype)
    states = _adapter_states(model, spec, probes) if spec.scope == SCOPE else _states(model, spec, probes)
    with running(source):
        return torch.stack([plain_loss(model, batch, spec.objective) for _ in states]).cpu()


def _states(model: nn.Module, spec: RunSpec, probes: Sequence[Probe]) -> Iterator[None]:
    """The model in the state of one probe after the other."""
    names, weights, dtype = layout(model, spec.scope), views(model, spec.scope), getattr(torch, spec.dtype)

    def move(probe: Probe, sign: int) -> None:
        drawn = draw(probe.direction, names, spec.device, dtype)
        for name, weight in weights.items():
            weight.add_(drawn.delta(name), alpha=sign * probe.shift)

    for probe in probes:
        move(probe, 1)
        yield
        move(probe, -1)


def _adapter_states(model: nn.Module, spec: RunSpec, probes: Sequence[Probe]) -> Iterator[None]:
    """The same for an adapter as it is before the first step: multiplied out and added to the weights."""
    adapter, weights = Adapter.of(model, spec), views(model, "lora")
    base = {name: weights[name].clone() for name in adapter.targets}
    flat = adapter.initial(spec.seed, spec.device)[FLAT]
    for probe in probes:
        z = draw(probe.direction, adapter.layout, spec.device, torch.float32).noise(FLAT)
        named = adapter.named({FLAT: flat + probe.shift * z})
        for name, weight in base.items():
            weights[name].copy_(weight + adapter.change(named, name))
        yield


def plain_loss(model: nn.Module, batch: Batch, objective: str) -> torch.Tensor:
    """The objective of a step under the model's own weights, mean over its minibatches, 0-d; back-propagation goes through it."""
    loss = _target_loss if objective == "nll" else _loss
    return torch.stack([loss(model, part) for part in minibatches(batch)]).mean()


def true_gradient(
    source: ModelSource, spec: RunSpec, parameters: Mapping[str, torch.Tensor], batch: Batch
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of a batch at these values of the scoped parameters, and its gradient by back-propagation, all in float64 on the CPU:
    name -> tensor in the shape of `layout`."""
    model = load_model(source, torch.float32, "cpu").double()
    with torch.no_grad():
        for name, view in views(model, spec.scope).items():
            view.copy_(parameters[name])
    turned = transposed(model)
    scoped = {name: model.get_parameter(name).requires_grad_(True) for name in parameters}
    loss = plain_loss(model, batch, spec.objective)
    found = dict(zip(scoped, torch.autograd.grad(loss, list(scoped.values())), strict=True))
    return loss.item(), {name: gradient.t() if name in turned else gradient for name, gradient in found.items()}


def _loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Mean over the examples of the cross-entropy over the options, whose score is the mean log-prob of their tokens."""
    total = []
    for example in batch:
        scores = torch.stack([_mean_logprob(model, tokens, scored) for tokens, scored in example.rows()])
        total.append(scores.logsumexp(0) - scores[example.label])
    return torch.stack(total).mean()


def _target_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Mean negative log-prob over all tokens of the batch's targets, each of which is the option to train towards."""
    targets = [list(example.rows())[example.label] for example in batch]
    return -torch.cat([_logprobs(model, tokens, scored) for tokens, scored in targets]).mean()


def _mean_logprob(model: nn.Module, tokens: tuple[int, ...], scored: int) -> torch.Tensor:
    return _logprobs(model, tokens, scored).mean()


def _logprobs(model: nn.Module, tokens: tuple[int, ...], scored: int) -> torch.Tensor:
    """Of a row's last tokens [scored]."""
    logits = model(torch.tensor([tokens], device=next(model.parameters()).device)).logits[0]
    wide = logits if logits.dtype == torch.float64 else logits.float()
    predicted = wide[-scored - 1 : -1].log_softmax(-1)
    return torch.stack([row[token] for row, token in zip(predicted, tokens[-scored:], strict=True)])
