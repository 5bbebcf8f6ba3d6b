"""Running means of the steps' gradient estimates: momentum, and the squares Adam divides by.

Low-rank directions keep theirs as a U side: while V stays, sum of c_t U_t V^T has that V; when V is resampled, it is projected
onto the new one. Tensors without factors keep theirs in float32, or keep nothing and draw the newest directions again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from bench.api import Direction, Means
from workloads.directions import Drawn, Layout, draw

Term = tuple[Direction, torch.Tensor]
Weighted = Sequence[tuple[Drawn, torch.Tensor]]
EPSILON = 1e-8


class RunningMeans:
    """u [sum(out) * rank] float32 over the V of `last`; mean, square: name -> float32; past: terms of the newest steps, the
    oldest first."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.layout, self.device = layout, device
        self.u: torch.Tensor | None = None
        self.last: Direction | None = None
        self.mean: dict[str, torch.Tensor] = {}
        self.square: dict[str, torch.Tensor] = {}
        self.past: list[tuple[Term, ...]] = []

    def factor(self, means: Means, terms: Weighted) -> torch.Tensor:
        """The U side of the mean after these terms, which share one V: N = beta N + (1 - beta) sum c U, a new tensor."""
        new = torch.stack([c * drawn.u_flat.float() for drawn, c in terms]).sum(0).mul_(1 - means.beta)
        drawn = terms[-1][0]
        if self.u is not None and self.last is not None:
            held = self.u if self.last.epoch == drawn.direction.epoch else self._projected(drawn)
            new.add_(held, alpha=means.beta)
        self.u, self.last = new, drawn.direction
        return new

    def _projected(self, drawn: Drawn) -> torch.Tensor:
        """N V_old^T V_new / n for every matrix [out, n]: what the new V can hold of N V_old^T (arXiv 2410.07698)."""
        assert self.u is not None and self.last is not None
        old = draw(self.last, self.layout, self.device, drawn.dtype, v_only=True)
        parts = []
        for name in (name for name in self.layout if drawn.factored(name)):
            turn = old.vt(name).float() @ drawn.v(name).float() / self.layout[name][1]
            parts.append((drawn.slice_u(self.u, name) @ turn).flatten())
        return torch.cat(parts)

    def delta(self, name: str, means: Means, terms: Weighted) -> torch.Tensor:
        """The move of a tensor without factors after these terms, kept in float32: -rate m, or -rate m / (sqrt(v) + 1e-8)."""
        gradient = weighted(name, terms)
        mean = self.mean.setdefault(name, torch.zeros_like(gradient))
        mean.mul_(means.beta).add_(gradient, alpha=1 - means.beta)
        if means.beta_square is None:
            return mean * -means.rate
        square = self.square.setdefault(name, torch.zeros_like(gradient))
        square.mul_(means.beta_square).addcmul_(gradient, gradient, value=1 - means.beta_square)
        steps = terms[-1][0].direction.step + 1
        root = (square / (1 - means.beta_square**steps)).sqrt_().add_(EPSILON)
        return mean.div(root).mul_(-means.rate / (1 - means.beta**steps))

    def remember(self, means: Means, terms: tuple[Term, ...]) -> list[Term]:
        """The terms of the newest `window` steps, each with its part in the mean, these included."""
        self.past = [*self.past, terms][-means.window :]
        ages = range(len(self.past) - 1, -1, -1)
        return [(d, c * ((1 - means.beta) * means.beta**age)) for age, held in zip(ages, self.past, strict=True) for d, c in held]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything kept, by name."""
        found = {f"mean:{name}": value for name, value in self.mean.items()}
        found |= {f"square:{name}": value for name, value in self.square.items()}
        found |= {} if self.u is None else {"mean_u": self.u}
        coefficients = [c.to(self.device) for terms in self.past for _, c in terms]
        return found | ({"past": torch.stack(coefficients)} if coefficients else {})

    def facts(self) -> dict[str, Any]:
        past = [[asdict(direction) for direction, _ in terms] for terms in self.past]
        return {"last": None if self.last is None else asdict(self.last), "past": past}

    def load(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """The inverse of `tensors` and `facts`."""
        held = {name: tensor.to(self.device, copy=True) for name, tensor in tensors.items()}
        self.u = held.get("mean_u")
        self.last = Direction(**facts["last"]) if facts["last"] else None
        self.mean = {name.removeprefix("mean:"): t for name, t in held.items() if name.startswith("mean:")}
        self.square = {name.removeprefix("square:"): t for name, t in held.items() if name.startswith("square:")}
        values = iter(held.get("past", torch.empty(0)))
        self.past = [tuple((Direction(**fields), next(values)) for fields in terms) for terms in facts["past"]]

    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())


def weighted(name: str, terms: Weighted) -> torch.Tensor:
    """Sum of coefficient * Z of a tensor without factors, float32."""
    drawn, c = terms[0]
    total = drawn.noise(name).float().mul_(c)
    for drawn, c in terms[1:]:
        total.add_(drawn.noise(name).float().mul_(c))
    return total
