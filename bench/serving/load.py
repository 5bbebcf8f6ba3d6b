"""vLLM's own load generator (`vllm bench serve`) against a server, in this process: it takes ten seconds to import, once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import httpx

from bench.executors.vllm.variables import prepare_environment
from bench.serving.settings import TOKEN


@dataclass(frozen=True)
class Users:
    """What is asked: prompts of random tokens and so many tokens of answer, coming at random; or a trace.

    trace    file of JSON lines with timestamp, input_length, output_length and hash_ids, as `vllm bench serve` reads it
    """

    tokenizer: str
    input_tokens: int
    output_tokens: int
    trace: str | None = None


@dataclass(frozen=True)
class Seen:
    """What the users of one stretch of load got; seconds, one value a request that was answered."""

    requests: int
    failed: int
    seconds: float
    ttft_s: list[float]
    tpot_s: list[float]
    e2e_s: list[float]
    itl_s: list[float]


class Generator:
    """log: where the generator's own output goes; token: what the server asks for, or ""."""

    def __init__(self, url: str, users: Users, log: Path, token: str = "") -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it warns of every prompt whose tokens come back otherwise
        prepare_environment("cpu")
        from vllm.benchmarks.serve import add_cli_args
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        self._url, self._users, self._log = url, users, log
        self._parser = FlexibleArgumentParser()
        add_cli_args(self._parser)
        if token:
            os.environ["OPENAI_API_KEY"] = token

    def run(self, model: str, rate: float, requests: int, seed: int, salt: str = "") -> Seen:
        """So many requests at so many a second (inf: all at once), as a Poisson process has them; a trace has its own times. They
        find what requests of the same salt have left in the prefix cache."""
        from vllm.benchmarks.serve import main_async

        users = self._users
        given: dict[str, Any] = {
            "backend": "openai",
            "base-url": self._url,
            "endpoint": "/v1/completions",
            "model": model,
            "tokenizer": users.tokenizer,
            "num-prompts": requests,
            "seed": seed,
            "temperature": 0,
            "ready-check-timeout-sec": 0,
        }
        if salt:
            given["extra-body"] = json.dumps({"cache_salt": salt})
        if users.trace:
            given |= {"dataset-name": "timed_trace", "dataset-path": users.trace}
        else:
            given |= {"dataset-name": "random", "random-input-len": users.input_tokens, "random-output-len": users.output_tokens}
            given |= {"random-range-ratio": 0.3, "request-rate": rate}
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        with open(self._log, "a", encoding="utf-8") as log, _printing_to(log):
            found = asyncio.run(main_async(self._parser.parse_args([*words, "--disable-tqdm", "--save-detailed"])))
        return _seen(found, requests)


def _seen(found: dict[str, Any], requests: int) -> Seen:
    answered = [i for i, error in enumerate(found["errors"]) if not error and found["ttfts"][i] > 0]
    ttft = [found["ttfts"][i] for i in answered]
    gaps = [found["itls"][i] for i in answered]
    return Seen(
        requests=requests,
        failed=requests - len(answered),
        seconds=found["duration"],
        ttft_s=ttft,
        tpot_s=[math.fsum(gap) / len(gap) for gap in gaps if gap],
        e2e_s=[first + math.fsum(gap) for first, gap in zip(ttft, gaps, strict=True)],
        itl_s=[value for gap in gaps for value in gap],
    )


@contextlib.contextmanager
def _printing_to(log: TextIO) -> Iterator[None]:
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


class Control:
    """GET and POST /training, and the server's counters."""

    def __init__(self, url: str) -> None:
        token = os.environ.get(TOKEN, "")
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=60)

    def facts(self) -> dict[str, Any]:
        return self._answer(self._client.get("/training"))

    def post(self, what: str, **fields: Any) -> dict[str, Any]:
        return self._answer(self._client.post(f"/training/{what}", content=json.dumps(fields)))

    def counter(self, name: str) -> float:
        """The sum of one of vLLM's counters over its labels."""
        lines = self._client.get("/metrics").text.splitlines()
        return math.fsum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))

    def close(self) -> None:
        self._client.close()

    @staticmethod
    def _answer(answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code != 200:
            raise OSError(f"the server refused: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found
