"""The official LoZO and MeZO steps, number for number: every weight rewritten four times a step, in new tensors.

Behaviour of the published code that is kept on purpose (and kept out of every other executor):
1. LoZO redraws V while it perturbs but not while it updates, so at a resampling step the update's U is other numbers of the
   same stream than the measured U: 1/interval of the steps move along an unmeasured direction (`measured=True` mends it).
2. theta + eps Z - 2 eps Z + eps Z is not theta in floating point: a residue stays in the weights at every step.
3. Updates are added in the model's dtype, rounded to nearest: in 16 bits most weights swallow a small one (see `Absorption`).
4. The loss and the projected gradient have the model's dtype: in float16 the gradient comes in coarse steps.
5. Several full-size temporaries per tensor and pass; the weight-decay term is computed even when it is 0.
The learning rate is constant and nothing is divided by the rank.
Sources: arXiv 2410.07698 and 2305.17333; repositories optsuite/LOZO and princeton-nlp/MeZO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from baselines.official.absorption import Absorption
from baselines.official.loss import step_loss
from bench.api import phase
from bench.errors import UsageError
from workloads.models.scope import layout

Noise = Callable[[str, torch.Tensor], torch.Tensor]
"""(name, parameter) -> Z in the parameter's shape and dtype; called once for each parameter, in the model's order."""
UNDECAYED = ("bias", "layer_norm", "layernorm")


@dataclass(frozen=True)
class StepRecord:
    """One step: the seed drawn for it, loss at theta +- eps Z in nats, (loss_plus - loss_minus) / (2 eps)."""

    seed: int
    loss_plus: float
    loss_minus: float
    projected_grad: float


class Rewriting:
    """A model whose scoped weights are perturbed and updated by rewriting all of them.

    Parameters frozen one by one stay out, as upstream; a model frozen as a whole, for inference, does not.
    """

    def __init__(self, model: nn.Module, *, eps: float, scope: str, weight_decay: float = 0.0) -> None:
        if scope not in ("lora", "full"):
            raise UsageError(f"scope {scope}: not known; choose one of lora, full")
        self.model, self.eps, self.weight_decay = model, eps, weight_decay
        inside, named = layout(model, scope), dict(model.named_parameters())
        frozen = not any(parameter.requires_grad for parameter in named.values())
        self.parameters = [(name, named[name]) for name in inside if frozen or named[name].requires_grad]
        self.absorption = Absorption([parameter for _, parameter in self.parameters])
        model.eval()

    @torch.no_grad()
    def perturb(self, noise: Noise, scale: float) -> None:
        """theta = theta + scale * eps * Z."""
        with phase("perturb"):
            for name, parameter in self.parameters:
                parameter.data = parameter.data + scale * noise(name, parameter.data) * self.eps

    @torch.no_grad()
    def update(self, noise: Noise, learning_rate: float, projected_grad: float) -> None:
        """theta = theta - learning_rate * (projected_grad * Z + weight_decay * theta), no decay for biases and norms."""
        with phase("update"), self.absorption:
            for name, parameter in self.parameters:
                move = projected_grad * noise(name, parameter.data)
                if not any(word in name for word in UNDECAYED):
                    move = move + self.weight_decay * parameter.data
                parameter.data = parameter.data - learning_rate * move

    @torch.no_grad()
    def decay(self, share: float) -> None:
        """Matrices times 1 - share."""
        with phase("update"):
            for _, parameter in self.parameters:
                if parameter.ndim == 2:
                    parameter.data = parameter.data * (1 - share)

    def loss(self, batch: Any) -> torch.Tensor:
        """0-d, in the model's dtype; `batch` as in `step_loss`."""
        with phase("score"):
            return step_loss(self.model, batch)


class OfficialLoop(Rewriting):
    """One step after the other over its own random stream: numpy's global one, as upstream, or `rng`.

    rng     numpy RandomState or Generator that the seeds of the steps are drawn from
    """

    def __init__(self, model: nn.Module, *, eps: float, learning_rate: float, scope: str, weight_decay: float, rng: Any) -> None:
        super().__init__(model, eps=eps, scope=scope, weight_decay=weight_decay)
        self.learning_rate, self.steps_done = learning_rate, 0
        self.rng = np.random if rng is None else rng
        self._draw_seed = self.rng.integers if isinstance(self.rng, np.random.Generator) else self.rng.randint

    def measured_noise(self, seed: int) -> Noise:
        """A new pass over the direction that is scored."""
        raise NotImplementedError

    def update_noise(self, seed: int) -> Noise:
        """A new pass over the direction that the weights move along."""
        return self.measured_noise(seed)

    def step(self, batch: Any) -> StepRecord:
        """Perturb, score, perturb, score, restore, update; `batch` as in `step_loss`."""
        return self._step(lambda: self.loss(batch))

    def replay(self, losses: torch.Tensor) -> StepRecord:
        """Do a step again whose losses [2] are known: the same four rewrites, residue and all, without a forward pass."""
        known = iter(losses.to(self.parameters[0][1]))
        return self._step(lambda: next(known))

    def _step(self, loss: Callable[[], torch.Tensor]) -> StepRecord:
        seed = int(self._draw_seed(1000000000))
        self.perturb(self.measured_noise(seed), 1)
        plus = loss()
        self.perturb(self.measured_noise(seed), -2)
        minus = loss()
        gradient = (plus - minus) / (2 * self.eps)
        # The one host synchronisation of the step; widening first changes no number.
        record = StepRecord(seed, *torch.stack([plus.float(), minus.float(), gradient.float()]).tolist())
        self.perturb(self.measured_noise(seed), 1)
        self.update(self.update_noise(seed), self.learning_rate, record.projected_grad)
        self.steps_done += 1
        return record

    def generator(self, seed: int) -> torch.Generator:
        """The stream that seeding torch's global generator would give, without touching it."""
        return torch.Generator(next(self.model.parameters()).device).manual_seed(seed)


class MezoLoop(OfficialLoop):
    """MeZO: Gaussian noise for every parameter, regenerated from the step's seed in all four passes."""

    def __init__(
        self, model: nn.Module, *, eps: float, learning_rate: float, scope: str, weight_decay: float = 0.0, rng: Any = None
    ) -> None:
        super().__init__(model, eps=eps, learning_rate=learning_rate, scope=scope, weight_decay=weight_decay, rng=rng)

    def measured_noise(self, seed: int) -> Noise:
        generator = self.generator(seed)
        return lambda _, parameter: _gaussian(parameter.shape, parameter, generator)


class LozoLoop(OfficialLoop):
    """LoZO: U V^T for matrices, Gaussian noise for the rest; V [in, rank] is redrawn every `interval` steps.

    measured    draw V again for the update too where the perturbation did, so that it moves along what was measured;
                False is upstream's behaviour
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float,
        rank: int,
        interval: int,
        learning_rate: float,
        scope: str,
        weight_decay: float = 0.0,
        rng: Any = None,
        measured: bool = False,
    ) -> None:
        super().__init__(model, eps=eps, learning_rate=learning_rate, scope=scope, weight_decay=weight_decay, rng=rng)
        if rank < 1 or interval < 1:
            raise UsageError(f"rank {rank}, interval {interval}: both must be at least 1")
        self.rank, self.interval, self.measured = rank, interval, measured
        self.v: dict[str, torch.Tensor] = {}

    def measured_noise(self, seed: int) -> Noise:
        return self._noise(seed, resample=self.steps_done % self.interval == 0)

    def update_noise(self, seed: int) -> Noise:
        return self._noise(seed, resample=self.measured and self.steps_done % self.interval == 0)

    def _noise(self, seed: int, resample: bool) -> Noise:
        generator = self.generator(seed)

        def noise(name: str, parameter: torch.Tensor) -> torch.Tensor:
            if parameter.ndim != 2:
                return _gaussian(parameter.shape, parameter, generator)
            if resample:  # V comes first in the stream, and shifts U
                self.v[name] = _gaussian((parameter.size(1), self.rank), parameter, generator)
            return _gaussian((parameter.size(0), self.rank), parameter, generator) @ self.v[name].t()

        return noise


def _gaussian(shape: tuple[int, ...], like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
