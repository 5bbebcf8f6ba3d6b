"""The rows of a score as requests that are made and answered in the engine's own process.

The server's process, which users wait for, sends one message for a whole score; it neither makes nor reads its requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar

from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.request import Request

PRIORITY = 1 << 20
"""vLLM serves small numbers first; users have 0."""
PREFIX = "zo-probe-"
"""Ids of probes begin with this; those of users begin with the endpoint's name."""


@dataclass
class Questions:
    """rows: (tokens, answer tokens whose log-probs are wanted at the last position) or (tokens, how many of the last ones are
    scored), each with an adapter of (name, id, path)."""

    rows: Sequence[tuple[list[int], list[int] | int, tuple[str, int, str]]]
    _wanted: dict[str, list[int] | int] = field(default_factory=dict)
    _found: dict[str, list[float]] = field(default_factory=dict)
    _numbers: ClassVar[count[int]] = count()

    def requests(self, hasher: Any) -> Iterator[Request]:
        """One for each row. hasher: vLLM's, of blocks; None where the keys and values of probes are not kept."""
        for tokens, wanted, (name, number, path) in self.rows:
            asked: dict[str, Any] = {"prompt_logprobs": 0} if isinstance(wanted, int) else {"logprob_token_ids": wanted}
            parameters = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, skip_reading_prefix_cache=True, **asked)
            request_id = f"{PREFIX}{next(self._numbers)}"
            self._wanted[request_id] = wanted
            given = {"lora_request": LoRARequest(name, number, path), "priority": PRIORITY, "block_hasher": hasher}
            yield Request(request_id, list(tokens), parameters, None, **given)

    def note(self, output: EngineCoreOutput) -> None:
        """Take in what the engine says of a row; a row of questions that were given up is none of these."""
        wanted, prompt, last = self._wanted.get(output.request_id), output.new_prompt_logprobs_tensors, output.new_logprobs
        if isinstance(wanted, int) and prompt is not None:
            self._found[output.request_id] = prompt.logprobs[:, 0].tolist()[-wanted:]
        elif isinstance(wanted, list) and last is not None:
            at = dict(zip(last.logprob_token_ids[0].tolist(), last.logprobs[0].tolist(), strict=True))
            self._found[output.request_id] = [at[token] for token in wanted]

    def answers(self) -> list[list[float]] | None:
        """For each row the log-probs that were asked for, once all are known."""
        return [self._found[name] for name in self._wanted] if len(self._found) == len(self._wanted) else None
