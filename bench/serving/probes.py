"""Scores minibatches in the engine, when its users leave room: as requests of its scheduler, or as passes between its rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import torch

from bench.api import Workload
from bench.data import Batch, TaskData
from workloads.tasks.loss import batch_loss, ragged

LEAST_S, MOST_S = 0.002, 0.02
"""How long to wait before asking again whether all probes have answered; at first half of what the last ones took."""


class Probes:
    """rpc: calls a method of the worker. passes: whether they are no requests."""

    def __init__(self, rpc: Any, task: TaskData, *, passes: bool = False) -> None:
        self._rpc, self._objective, self.single = rpc, task.objective, task.single_token_options
        self._passes, self._took_s = passes, 0.0

    async def losses(self, workload: Workload, step: int, batch: Batch, adapters: Sequence[Any]) -> torch.Tensor:
        """Losses [n_probes] of a step, float32, whose plan stands in the adapters' slots already."""

        async def score(count: int) -> torch.Tensor:
            return batch_loss(self._objective, await self.option_logprobs(batch, adapters[:count]), batch)

        losses = await score(len(workload.plan(step)))
        more = workload.then(step, losses)
        if not more:
            return losses
        await self._rpc("zs_then", step, losses.tolist())
        return torch.cat([losses, await score(len(more))])

    async def option_logprobs(self, batch: Batch, adapters: Sequence[Any]) -> torch.Tensor:
        """Mean log-prob of each option [adapters, n, most options], float32; -inf where an example has fewer. From passes, for a
        classification by single tokens: up to a constant for each example."""
        counts = torch.tensor([len(example.options) for example in batch])
        if self._passes:
            rows = [(list(example.prompt), [list(option) for option in example.options]) for example in batch]
            states = await self._ask("zs_score", rows, [adapter.lora_int_id for adapter in adapters])
            flat = torch.tensor([[value for row in state for value in row] for state in states], dtype=torch.float32)
            return ragged(flat, counts)
        asked = [row for example in batch for row in self._rows(example)]
        named = [(adapter.lora_name, adapter.lora_int_id, adapter.lora_path) for adapter in adapters]
        found = await self._ask("zs_ask", [(*row, adapter) for adapter in named for row in asked])
        each = len(asked)
        parts = [self._scores(batch, found[start : start + each]) for start in range(0, len(found), each)]
        return torch.stack([ragged(torch.tensor(part, dtype=torch.float32), counts) for part in parts])

    def _rows(self, example: Any) -> list[tuple[list[int], list[int] | int]]:
        """Answers of one token are read from the prompt's last position."""
        if self.single:
            return [(list(example.prompt), list(dict.fromkeys(option[0] for option in example.options)))]
        return [(list(tokens), scored) for tokens, scored in example.rows()]

    def _scores(self, batch: Batch, found: list[list[float]]) -> list[float]:
        """Of all options of all examples, one after the other."""
        if not self.single:
            return [float(sum(values)) / len(values) for values in found]
        scores = []
        for example, values in zip(batch, found, strict=True):
            at = dict(zip(dict.fromkeys(option[0] for option in example.options), values, strict=True))
            scores += [at[option[0]] for option in example.options]
        return scores

    async def _ask(self, what: str, *given: Any) -> list[Any]:
        clock = asyncio.get_running_loop().time
        begin, pause = clock(), max(LEAST_S, self._took_s / 2)
        await self._rpc(what, *given)
        while True:
            await asyncio.sleep(pause)
            found: list[Any] | None = await self._rpc("zs_answers")
            if found is not None:
                self._took_s = clock() - begin
                return found
            pause = min(MOST_S, max(LEAST_S, (clock() - begin) / 8))
