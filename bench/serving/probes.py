"""Scores examples where training is when its users leave room, for the server's own process: how versions are judged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import torch

from bench.data import Batch
from bench.serving.course import adapter_of, sent, table
from bench.serving.messages import Rpc

LEAST_S, MOST_S = 0.002, 0.02
"""How long to wait before asking whether all rows have answered."""


async def option_logprobs(rpc: Rpc, examples: Batch, adapters: Sequence[Any]) -> torch.Tensor:
    """Mean log-prob of each option [adapters, n, most options], float32; -inf where an example has fewer. From passes, for a
    classification by single tokens: up to a constant for each example."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await rpc("score", sent(examples), [*map(adapter_of, adapters)])
    while (found := await rpc("answers")) is None:
        await asyncio.sleep(min(MOST_S, max(LEAST_S, (loop.time() - begin) / 8)))
    return table(found)
