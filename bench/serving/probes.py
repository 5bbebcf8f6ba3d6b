"""Scores minibatches through the engine's own scheduler, as requests that wait for users."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import torch

from bench.data import Batch, TaskData
from bench.executors.vllm.requests import row_mean
from workloads.tasks.loss import ragged

PRIORITY = 1 << 20
"""vLLM serves small numbers first; users have 0."""
PREFIX = "zo-probe-"
"""Ids of probes begin with this; those of users begin with the endpoint's name."""


class Probes:
    """llm: vLLM's AsyncLLM."""

    def __init__(self, llm: Any, task: TaskData) -> None:
        self._generate, self._numbers = llm.generate, count()
        self.single = task.single_token_options

    async def option_logprobs(self, batch: Batch, adapter: Any) -> torch.Tensor:
        """Mean log-prob of each option [n, most options], float32, under an adapter; -inf where an example has fewer."""
        if self.single:
            found = await _together(self._first_tokens(example, adapter) for example in batch)
            rows = [value for values in found for value in values]
        else:
            rows = await _together(self._row(*row, adapter) for example in batch for row in example.rows())
        return ragged(torch.tensor(rows, dtype=torch.float32), torch.tensor([len(example.options) for example in batch]))

    async def _first_tokens(self, example: Any, adapter: Any) -> list[float]:
        """Answers of one token are read from the prompt's last position."""
        firsts = list(dict.fromkeys(option[0] for option in example.options))
        output = await self._ask(example.prompt, adapter, logprob_token_ids=firsts)
        at = output.outputs[0].logprobs[0]
        return [at[option[0]].logprob for option in example.options]

    async def _row(self, tokens: tuple[int, ...], scored: int, adapter: Any) -> float:
        output = await self._ask(tokens, adapter, prompt_logprobs=0)
        return row_mean(output.prompt_logprobs, tokens, scored)

    async def _ask(self, tokens: tuple[int, ...], adapter: Any, **asked: Any) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        how: dict[str, Any] = dict(max_tokens=1, temperature=0.0, detokenize=False, skip_reading_prefix_cache=True)
        parameters = SamplingParams(**how, output_kind=RequestOutputKind.FINAL_ONLY, **asked)
        stream = self._generate(
            {"prompt_token_ids": list(tokens)},
            parameters,
            f"{PREFIX}{next(self._numbers)}",
            lora_request=adapter,
            priority=PRIORITY,
        )
        async for output in stream:
            last = output
        return last


async def _together(questions: Any) -> list[Any]:
    """All at once; where one fails the others are given up."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(question) for question in questions]
    return [task.result() for task in tasks]
