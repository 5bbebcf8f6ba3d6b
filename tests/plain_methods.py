"""The algorithms as their papers have them, in plain loops over a `PlainLoop`'s float64 weights, without the suite's methods."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from plain_loop import PlainLoop

    from bench.data import Batch


def rate(loop: PlainLoop, number: int) -> float:
    """The learning rate of a step: up over lr_warmup steps, then as the schedule says."""
    s = loop.spec
    if number < s.lr_warmup:
        return s.learning_rate * (number + 1) / s.lr_warmup
    gone = (number - s.lr_warmup) / (s.warmup + s.steps - s.lr_warmup)
    return s.learning_rate * {"constant": 1.0, "linear": 1 - gone, "cosine": (1 + math.cos(math.pi * gone)) / 2}[s.lr_schedule]


def at(loop: PlainLoop, z: dict[str, torch.Tensor], shift: float, batch: Batch) -> torch.Tensor:
    """The loss at theta + shift Z."""
    loop.add(z, shift)
    loss = loop.loss(batch)
    loop.add(z, -shift)
    return loss


def two_sided(loop: PlainLoop, number: int, batch: Batch) -> tuple[list, list]:
    """Losses, and (Z, projected gradient) of each query."""
    eps, losses, found = loop.spec.eps, [], []
    for query in range(loop.spec.queries):
        z = loop.z(number, query)
        losses += [at(loop, z, eps, batch), at(loop, z, -eps, batch)]
        found.append((z, float(losses[-2] - losses[-1]) / (2 * eps)))
    return losses, found


def forward_differences(loop: PlainLoop, number: int, batch: Batch) -> tuple[list, list]:
    zs = [loop.z(number, query) for query in range(loop.spec.queries)]
    losses = [loop.loss(batch), *(at(loop, z, loop.spec.eps, batch) for z in zs)]
    return losses, [(z, float(loss - losses[0])) for z, loss in zip(zs, losses[1:], strict=True)]


def sgd(loop: PlainLoop, number: int, batch: Batch) -> list:
    losses, found = two_sided(loop, number, batch)
    for z, gradient in found:
        loop.add(z, -rate(loop, number) * gradient / len(found))
    return losses


def sign(loop: PlainLoop, number: int, batch: Batch) -> list:
    losses, found = two_sided(loop, number, batch)
    for z, gradient in found:
        loop.add(z, -rate(loop, number) * math.copysign(1, gradient) / len(found))
    return losses


def one_sided(loop: PlainLoop, number: int, batch: Batch) -> list:
    losses, found = forward_differences(loop, number, batch)
    for z, difference in found:
        loop.add(z, -rate(loop, number) * difference / loop.spec.eps / len(found))
    return losses


def fzoo(loop: PlainLoop, number: int, batch: Batch) -> list:
    losses, found = forward_differences(loop, number, batch)
    values, n = [float(loss) for loss in losses[1:]], len(found)
    spread = math.sqrt(sum((value - sum(values) / n) ** 2 for value in values) / (n - 1))
    for z, difference in found:
        loop.add(z, -rate(loop, number) * difference / spread / n)
    return losses


def evolution(loop: PlainLoop, number: int, batch: Batch) -> list:
    """The members' losses standardised, then a step along each member's own perturbation."""
    losses, found = two_sided(loop, number, batch)
    values = [float(loss) for loss in losses]
    middle = sum(values) / len(values)
    spread = math.sqrt(sum((value - middle) ** 2 for value in values) / len(values))
    for member, value in enumerate(values):
        z, sign_of = found[member // 2][0], 1 if member % 2 == 0 else -1
        loop.add(z, -rate(loop, number) / len(values) * sign_of * (value - middle) / spread)
    return losses


def three_points(loop: PlainLoop, number: int, batch: Batch) -> list:
    length, losses, best = rate(loop, number), [loop.loss(batch)], (math.inf, None, 0.0)
    for query in range(loop.spec.queries):
        z = loop.z(number, query)
        for shift in (length, -length):
            losses.append(at(loop, z, shift, batch))
            best = min(best, (float(losses[-1]), z, shift), key=lambda item: item[0])
    if best[0] < float(losses[0]):
        loop.add(best[1], best[2])
    return losses


def conservative(loop: PlainLoop, number: int, batch: Batch) -> list:
    losses, [(z, gradient)] = two_sided(loop, number, batch)
    moves = [0.0, -rate(loop, number) * gradient, rate(loop, number) * gradient]
    found = [at(loop, z, move, batch) for move in moves]
    loop.add(z, min(zip(found, moves, strict=True), key=lambda item: float(item[0]))[1])
    return losses + found


def mean_gradient(loop: PlainLoop, found: list) -> dict[str, torch.Tensor]:
    return {name: sum(gradient * z[name] for z, gradient in found) / len(found) for name in loop.weights}


def momentum(loop: PlainLoop, number: int, batch: Batch) -> list:
    losses, found = two_sided(loop, number, batch)
    loop.steps.append(mean_gradient(loop, found))
    beta, newest = loop.spec.momentum, len(loop.steps) - 1
    for age in range(newest + 1):
        loop.add(loop.steps[newest - age], -rate(loop, number) * (1 - beta) * beta**age)
    return losses


def low_rank_momentum(loop: PlainLoop, number: int, batch: Batch) -> list:
    """N and V of each matrix by itself; N V_old^T V_new / n where V is resampled."""
    losses, found = two_sided(loop, number, batch)
    drawn, beta = [loop.draw(number, query) for query in range(len(found))], loop.spec.momentum
    for name, weight in loop.weights.items():
        if drawn[0].factored(name):
            v = drawn[0].v(name).double()
            now = sum(g * d.u(name).double() for d, (_, g) in zip(drawn, found, strict=True)) / len(found)
            before, old = loop.held.get(name, (torch.zeros_like(now), v))
            n = beta * (before @ old.T @ v / len(v) if number % loop.spec.interval == 0 else before) + (1 - beta) * now
            loop.held[name] = n, v
            weight -= rate(loop, number) * n @ v.T
        else:
            m = beta * loop.held.get(name, 0.0) + (1 - beta) * sum(g * z[name] for z, g in found) / len(found)
            loop.held[name] = m
            weight -= rate(loop, number) * m
    return losses


def adam(loop: PlainLoop, number: int, batch: Batch) -> list:
    losses, found = two_sided(loop, number, batch)
    beta, gradient = loop.spec.momentum, mean_gradient(loop, found)
    for name, weight in loop.weights.items():
        m, v = loop.held.get(name, (0.0, 0.0))
        m, v = beta * m + (1 - beta) * gradient[name], 0.999 * v + 0.001 * gradient[name] ** 2
        loop.held[name] = m, v
        weight -= rate(loop, number) * (m / (1 - beta ** (number + 1))) / ((v / (1 - 0.999 ** (number + 1))).sqrt() + 1e-8)
    return losses


METHODS: dict[str, Any] = {
    **dict.fromkeys(("lozo", "mezo", "factorized"), sgd),
    **{"zo-sign": sign, "one-sided": one_sided, "fzoo": fzoo, "eggroll": evolution, "three-points": three_points},
    "conservative": conservative,
    **{"lozo-m": low_rank_momentum, "mezo-m": momentum, "zo-adam": adam},
}
KINDS = {
    **dict.fromkeys(("lozo", "one-sided", "three-points", "conservative", "lozo-m"), "lowrank"),
    **dict.fromkeys(("mezo", "zo-sign", "mezo-m", "zo-adam"), "dense"),
    **dict.fromkeys(("factorized", "fzoo", "eggroll"), "factorized"),
}
RATES = {"lozo": 1e-4, "mezo": 1e-5, "factorized": 1e-5, "one-sided": 1e-4, "fzoo": 1e-3, "zo-sign": 1e-4}
RATES |= {"three-points": 1e-3, "conservative": 1e-4, "eggroll": 1e-3, "lozo-m": 1e-4, "mezo-m": 1e-5, "zo-adam": 1e-4}
