"""How good the gradient estimate of a step is, beside the true gradient: back-propagation in float64 through the plain model.

The parameters stay where they are: the estimate is drawn anew, each time from fresh directions, on one minibatch. For models of
at most LARGEST parameters; only where it is asked for by name.

Findings:
    draws               estimates drawn, each as one step of the algorithm would make it
    parameters          in scope
    minibatches         scored for one estimate
    loss, gradient_norm of the minibatch, and of its true gradient
    cosine              between estimate and gradient, mean over the draws; cosine_deviation: the standard deviation
    averaged            n -> the same for the mean of n estimates: what more queries or a running mean bring
    sign_agreement      share of the directions whose projected gradient has the sign of the true slope along them
    slope_error         of the projected gradients against the true slopes, root mean square over root mean square: what eps costs
    gain                component of the estimate along the gradient, in lengths of the gradient: 1 where it is unbiased. What a
                        method leaves to its learning rate (signs, standardised losses) is left out of it too
    gain_deviation      standard deviation of the gain over its mean: the noise of a step over the draws of its directions
    norm                length of the estimate in lengths of the gradient, root mean square
An estimate is what the step moves against: for running means what goes into them, else the step without its learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from statistics import fmean, pstdev
from typing import Any, ClassVar

import torch

from bench.api import Workload
from bench.recorders.base import BaseRecorder
from bench.registry import make_workload
from workloads.directions import Layout, draw
from workloads.models.adapter import SCOPE
from workloads.models.scope import layout
from workloads.reference import true_gradient
from workloads.steps import scored

DRAWS = 64
LARGEST = 200_000_000
Tensors = Mapping[str, torch.Tensor]


class GradientQuality(BaseRecorder):
    """Cosine, signs and variance of the estimate (see the module for the shape)."""

    name: ClassVar[str] = "gradient_quality"
    version: ClassVar[int] = 1
    asked: ClassVar[bool] = True
    scores: ClassVar[tuple[str, ...]] = ("losses",)

    def collect(self) -> dict[str, Any]:
        """RuntimeError for a model that is too large, or at a point without a gradient."""
        context = self.context
        spec = replace(context.spec, lr_schedule="constant", lr_warmup=0, weight_decay=0.0)
        if spec.scope == SCOPE:
            raise RuntimeError(f"--scope {SCOPE}: back-propagation beside it knows parameters of the model's own only")
        shapes = layout(context.source, spec.scope)
        whole = sum(torch.Size(shape).numel() for shape in layout(context.source, "full").values())
        if whole > LARGEST:
            raise RuntimeError(f"the model has {whole:,} parameters; back-propagation beside it is for at most {LARGEST:,}")
        parameters = {name: value.double() for name, value in context.executor.parameters().items()}
        loss, gradient = true_gradient(context.source, spec, parameters, context.batch)
        length = sqrt(_product(gradient, gradient))
        if not length > 0:
            raise RuntimeError("the gradient is 0 here: there is nothing to estimate")
        workload = make_workload(spec)
        first = context.probes[0].direction
        start = (first.step // first.kept + 1) * first.kept
        estimates, averages = _Estimates(shapes, gradient, self.context.device, getattr(torch, spec.dtype)), _Averages(gradient)
        for number in range(DRAWS):
            step = start + number * first.kept  # V is drawn anew each time
            losses = scored(context.executor, workload, step, context.batch).float().cpu()
            averages.add(estimates.take(workload, step, losses))
        gains = [product / length**2 for product in averages.products]
        return {
            "draws": DRAWS,
            "parameters": sum(torch.Size(shape).numel() for shape in shapes.values()),
            "minibatches": len(context.probes),
            "loss": loss,
            "gradient_norm": length,
            "cosine": fmean(averages.cosines[1]),
            "cosine_deviation": pstdev(averages.cosines[1]),
            "averaged": {str(count): fmean(found) for count, found in averages.cosines.items()},
            "sign_agreement": estimates.signs,
            "slope_error": estimates.error,
            "gain": fmean(gains),
            "gain_deviation": pstdev(gains) / abs(fmean(gains)) if fmean(gains) else None,
            "norm": sqrt(fmean(averages.squares)) / length,
        }


class _Estimates:
    """Makes estimates of losses; slopes: (measured, true) of every direction so far."""

    def __init__(self, shapes: Layout, gradient: Tensors, device: torch.device, dtype: torch.dtype) -> None:
        self.shapes, self.gradient, self.device, self.dtype = shapes, gradient, device, dtype
        self.slopes: list[tuple[float, float]] = []

    def take(self, workload: Workload, step: int, losses: torch.Tensor) -> Tensors:
        """The estimate of a step, float64, without the learning rate."""
        update = workload.update(step, losses)
        scale = 1.0 if update.means else -1.0 / workload.rate(step)
        total = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in self.shapes.items()}
        measured = workload.projected_gradients(losses).tolist()
        for slope, (direction, coefficient) in zip(measured, update.terms, strict=True):
            drawn, true = draw(direction, self.shapes, self.device, self.dtype), 0.0
            for name, held in total.items():
                z = drawn.delta(name).cpu().double()
                true += float((z * self.gradient[name]).sum())
                held.add_(z, alpha=float(coefficient) * scale)
            self.slopes.append((slope, true))
        return total

    @property
    def signs(self) -> float:
        return fmean((measured > 0) == (true > 0) for measured, true in self.slopes)

    @property
    def error(self) -> float:
        return sqrt(fmean((m - t) ** 2 for m, t in self.slopes) / fmean(t**2 for _, t in self.slopes))


class _Averages:
    """Cosines of the means of 1, 2, 4, ... estimates that follow one another; products with the gradient, squared lengths."""

    def __init__(self, gradient: Tensors) -> None:
        self.gradient, self.length = gradient, sqrt(_product(gradient, gradient))
        self.held: dict[int, Tensors] = {}
        self.cosines: dict[int, list[float]] = {}
        self.products: list[float] = []
        self.squares: list[float] = []

    def add(self, estimate: Tensors, count: int = 1) -> None:
        """Two sums of so many make one of twice as many, as digits carry: one sum is held for each size."""
        product, square = _product(estimate, self.gradient), _product(estimate, estimate)
        if count == 1:
            self.products.append(product)
            self.squares.append(square)
        self.cosines.setdefault(count, []).append(product / (sqrt(square) * self.length) if square else 0.0)
        other = self.held.pop(count, None)
        if other is None:
            self.held[count] = estimate
        else:
            self.add({name: value + other[name] for name, value in estimate.items()}, 2 * count)


def _product(a: Tensors, b: Tensors) -> float:
    return float(sum((a[name] * b[name]).sum() for name in a))
