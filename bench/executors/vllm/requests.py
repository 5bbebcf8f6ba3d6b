"""Scoring and generating through vLLM's public requests: its own scheduler, sampler and prefix cache.

With shared prefixes a step goes in waves, because only what an earlier wave has run can be found in the cache: what all prompts
begin with, then the contexts of the first tokens that are scored, then the rows of longer options. Every parameter state of
every call has a `cache_salt` of its own, so keys and values of another state are never found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import torch

from bench.data import Batch
from bench.executors.vllm.engine import BLOCK
from workloads.models.generate import up_to
from workloads.tasks.loss import ragged

Tokens = tuple[int, ...]
Adapters = Sequence[Any]


class Requested:
    """llm: a vllm.LLM; adapters: whether it has adapter slots. An adapter of None is the base model."""

    def __init__(self, llm: Any, *, adapters: bool) -> None:
        self._llm, self._adapters, self._salts = llm, adapters, count()

    def option_logprobs(self, batch: Batch, adapters: Adapters, *, shared: bool) -> torch.Tensor:
        """Mean log-prob of each option [n_adapters, n_examples, most options], float32; -inf where an example has fewer."""
        rows = [row for example in batch for row in example.rows()]
        read = self._shared(rows, adapters) if shared else self._whole(rows, adapters)
        scores = torch.tensor(read, dtype=torch.float32)
        return ragged(scores, torch.tensor([len(example.options) for example in batch]))

    def generate(self, examples: Batch, adapters: Adapters, most: int, stop_ids: Sequence[int]) -> list[list[Tokens]]:
        """Greedy answers under each adapter, at most `most` tokens long, without the token that ended them: one batch for all."""
        greedy = [self._parameters(max_tokens=most, stop_token_ids=list(stop_ids))] * len(examples)
        outputs = self._run([example.prompt for example in examples], greedy, adapters, self._fresh(len(adapters)))
        return _parts([up_to(output.outputs[0].token_ids, stop_ids) for output in outputs], len(examples))

    def repeat(self, batch: Batch, lengths: Sequence[Sequence[int]]) -> None:
        """As many tokens as these [states][examples] after each prompt, whatever they are, by the base model."""
        asked = [self._parameters(max_tokens=length, ignore_eos=True) for state in lengths for length in state]
        salts = self._fresh(len(lengths))
        given = [{"prompt_token_ids": list(e.prompt), "cache_salt": salt} for salt in salts for e in batch]
        self._llm.generate(given, asked, use_tqdm=False)

    def _whole(self, rows: Sequence[tuple[Tokens, int]], adapters: Adapters) -> list[list[float]]:
        asked = [self._parameters(max_tokens=1, prompt_logprobs=0)] * len(rows)
        outputs = self._run([tokens for tokens, _ in rows], asked, adapters, self._fresh(len(adapters)))
        means = [row_mean(o.prompt_logprobs, *row) for o, row in zip(outputs, list(rows) * len(adapters), strict=True)]
        return _parts(means, len(rows))

    def _shared(self, rows: Sequence[tuple[Tokens, int]], adapters: Adapters) -> list[list[float]]:
        salts, firsts = self._fresh(len(adapters)), dict[Tokens, dict[int, None]]()
        for tokens, scored in rows:
            firsts.setdefault(tokens[:-scored], {})[tokens[-scored]] = None
        long = [(tokens, scored) for tokens, scored in rows if scored > 1]
        common = _shared_blocks(list(firsts)) if long else ()
        if common:
            self._run([common], [self._parameters(max_tokens=1)], adapters, salts)
        asked = [self._parameters(max_tokens=1, logprob_token_ids=list(first)) for first in firsts.values()]
        outputs = _parts(self._run(list(firsts), asked, adapters, salts), len(firsts))
        after = self._rest(long, adapters, salts) if long else [[] for _ in adapters]
        found = []
        for contexts, rest in zip(outputs, after, strict=True):
            at = {context: output.outputs[0].logprobs[0] for context, output in zip(firsts, contexts, strict=True)}
            more = iter(rest)
            sums = [at[row[:-n]][row[-n]].logprob + (next(more) if n > 1 else 0.0) for row, n in rows]
            found.append([total / scored for total, (_, scored) in zip(sums, rows, strict=True)])
        return found

    def _rest(self, rows: Sequence[tuple[Tokens, int]], adapters: Adapters, salts: Sequence[str]) -> list[list[float]]:
        """Summed log-probs of every scored token but the first, whose positions no earlier wave has run.

        vLLM leaves the log-probs of cached positions uninitialised: where the cache held more than a row's context, because the
        engine took the wave in several passes, the row is run again without it.
        """
        many = [(row, scored, adapter, salt) for adapter, salt in zip(adapters, salts, strict=True) for row, scored in rows]
        reading = self._parameters(max_tokens=1, prompt_logprobs=0, skip_reading_prefix_cache=False)
        outputs = self._run([row for row, _ in rows], [reading] * len(rows), adapters, salts)
        sums = []
        for output, (row, scored, adapter, salt) in zip(outputs, many, strict=True):
            if (output.num_cached_tokens or 0) > len(row) - scored:
                plain = self._parameters(max_tokens=1, prompt_logprobs=0, skip_reading_prefix_cache=True)
                (output,) = self._run([row], [plain], [adapter], [salt])
            sums.append(_sum(output.prompt_logprobs, row, scored - 1))
        return _parts(sums, len(rows))

    def _run(self, prompts: Sequence[Tokens], asked: Sequence[Any], adapters: Adapters, salts: Sequence[str]) -> list[Any]:
        """Every prompt under every adapter, adapter after adapter."""
        chosen = [adapter for adapter in adapters for _ in prompts]
        given = [{"prompt_token_ids": list(prompt), "cache_salt": salt} for salt in salts for prompt in prompts]
        outputs: list[Any] = self._llm.generate(
            given, list(asked) * len(adapters), lora_request=chosen if self._adapters else None, use_tqdm=False
        )
        return outputs

    def _fresh(self, number: int) -> list[str]:
        """Salts that no request has had."""
        return [f"state {next(self._salts)}" for _ in range(number)]

    @staticmethod
    def _parameters(**asked: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(temperature=0.0, detokenize=False, **asked)


@dataclass(frozen=True)
class RequestWork:
    """What one state of a batch costs: tokens that the engine runs (what the cache holds left out), requests, and waves."""

    tokens: int
    requests: int
    waves: int

    @classmethod
    def of(cls, batch: Batch, shared: bool) -> RequestWork:
        rows = [row for example in batch for row in example.rows()]
        if not shared:
            return cls(sum(len(tokens) for tokens, _ in rows), len(rows), 1)
        contexts = list(dict.fromkeys(tokens[:-scored] for tokens, scored in rows))
        long = [(tokens, scored) for tokens, scored in rows if scored > 1]
        common = _shared_blocks(contexts) if long else ()
        tokens = len(common) + sum(len(context) - _cached(len(common), len(context)) for context in contexts)
        tokens += sum(len(row) - (len(row) - scored) // BLOCK * BLOCK for row, scored in long)
        return cls(tokens, bool(common) + len(contexts) + len(long), 1 + bool(common) + bool(long))


def _cached(held: int, length: int) -> int:
    """What of a prompt comes from the cache: whole blocks, and never its last token."""
    return min(held, (length - 1) // BLOCK * BLOCK)


def _shared_blocks(contexts: Sequence[Tokens]) -> Tokens:
    """The whole blocks that all contexts begin with; none where there is one context only."""
    if len(contexts) == 1:
        return ()
    low, high = min(contexts), max(contexts)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))
    return low[: same // BLOCK * BLOCK]


def _sum(logprobs: Any, tokens: Tokens, last: int) -> float:
    return float(sum(logprobs[i][tokens[i]].logprob for i in range(len(tokens) - last, len(tokens))))


def row_mean(logprobs: Any, tokens: Tokens, scored: int) -> float:
    """Mean log-prob of the last `scored` tokens, of a request's prompt log-probs."""
    return _sum(logprobs, tokens, scored) / scored


def _parts(values: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(values[start : start + size]) for start in range(0, len(values), size)]
