"""What is to be scored as requests that are made and answered in the engine's own process, for its scheduler's rounds.

The server's process, which users wait for, sends the examples; it neither makes nor reads their requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Any, ClassVar

from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.request import Request

from bench.data import Batch, Example
from bench.serving.course import Adapter, Scores

PRIORITY = 1 << 20
"""vLLM serves small numbers first; users have 0."""
PREFIX = "zo-probe-"
"""Ids of probes begin with this; those of users begin with the endpoint's name."""


class Questions:
    """hold: takes requests, which rounds with room let in. single: all options are one token, and are read from the prompt's last
    position. hasher: vLLM's, of blocks; None where the keys and values of probes are not kept."""

    _numbers: ClassVar[count[int]] = count()

    def __init__(self, hold: Callable[[Iterable[Request]], None]) -> None:
        self._hold, self.single, self.hasher = hold, True, None
        self._examples: Batch = ()
        self._wanted: dict[str, list[int] | int] = {}
        self._found: dict[str, list[float]] = {}

    def ask(self, examples: Batch, adapters: Sequence[Adapter]) -> None:
        """One request for each row under each state."""
        self._examples, self._wanted, self._found = examples, {}, {}
        rows = [row for example in examples for row in self._rows(example)]
        self._hold(self._request(*row, adapter) for adapter in adapters for row in rows)

    def _rows(self, example: Example) -> Iterator[tuple[list[int], list[int] | int]]:
        """Tokens, and answer tokens whose log-probs are wanted at the last position, or how many of the last ones are scored."""
        if self.single:
            yield list(example.prompt), list(dict.fromkeys(option[0] for option in example.options))
        else:
            yield from ((list(tokens), scored) for tokens, scored in example.rows())

    def _request(self, tokens: list[int], wanted: list[int] | int, adapter: Adapter) -> Request:
        asked: dict[str, Any] = {"prompt_logprobs": 0} if isinstance(wanted, int) else {"logprob_token_ids": wanted}
        parameters = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, skip_reading_prefix_cache=True, **asked)
        request_id = f"{PREFIX}{next(self._numbers)}"
        self._wanted[request_id] = wanted
        given: dict[str, Any] = {"lora_request": LoRARequest(*adapter), "priority": PRIORITY, "block_hasher": self.hasher}
        return Request(request_id, tokens, parameters, None, **given)

    @property
    def waits(self) -> bool:
        """Never for `advance`: the scheduler's rounds bring its requests on."""
        return False

    def advance(self) -> None: ...

    def nbytes(self) -> int:
        return 0

    def note(self, output: EngineCoreOutput) -> None:
        """Take in what the engine says of a row; a row of an asking that was given up is none of these."""
        wanted, prompt, last = self._wanted.get(output.request_id), output.new_prompt_logprobs_tensors, output.new_logprobs
        if isinstance(wanted, int) and prompt is not None:
            self._found[output.request_id] = prompt.logprobs[:, 0].tolist()[-wanted:]
        elif isinstance(wanted, list) and last is not None:
            at = dict(zip(last.logprob_token_ids[0].tolist(), last.logprobs[0].tolist(), strict=True))
            self._found[output.request_id] = [at[token] for token in wanted]

    def answers(self) -> Scores | None:
        if len(self._found) < len(self._wanted):
            return None
        values = iter([self._found[name] for name in self._wanted])
        per_state = len(self._examples) if self.single else sum(len(example.options) for example in self._examples)
        states = len(self._wanted) // per_state
        return [[self._options(example, values) for example in self._examples] for _ in range(states)]

    def _options(self, example: Example, values: Iterator[list[float]]) -> list[float]:
        if not self.single:
            return [sum(found) / len(found) for found in islice(values, len(example.options))]
        at = dict(zip(dict.fromkeys(option[0] for option in example.options), next(values), strict=True))
        return [at[option[0]] for option in example.options]
