"""What is run (`RunSpec`) and how often and where (`RunOptions`): frozen, checked on construction, plain JSON outside."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from bench.errors import UsageError, option

CHOICES: dict[str, tuple[str, ...]] = {
    "weights": ("auto", "pretrained", "random"),
    "scope": ("lora", "full"),
    "dtype": ("float32", "float16", "bfloat16"),
    "device": ("cpu", "cuda"),
    "directions": ("shared", "upstream"),
    "batching": ("sequential", "paired"),
    "kv": ("recompute", "shared"),
    "lora": ("dense", "unfused", "fused"),
    "loop": ("requests", "resident"),
}
AT_LEAST_1 = ("steps", "batch_size", "rank", "interval", "queries")
AT_LEAST_0 = ("warmup", "eval_every", "checkpoint_every", "seed", "data_seed")


@dataclass(frozen=True)
class RunSpec:
    """One point of the matrix, complete: nothing in it is still to be decided (see bench.defaults)."""

    workload: str
    executor: str
    model: str
    weights: str
    task: str
    dtype: str
    device: str
    directions: str
    batching: str
    kv: str
    lora: str
    loop: str
    rank: int = 2
    interval: int = 50
    learning_rate: float = 1e-6
    eps: float = 1e-3
    batch_size: int = 16
    queries: int = 1
    scope: str = "lora"
    steps: int = 100
    warmup: int = 10
    seed: int = 0
    data_seed: int = 0
    data: str | None = None
    upstream: str | None = None
    eval_every: int = 0
    checkpoint_every: int = 0
    evaluate: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name, valid in CHOICES.items():
            value = getattr(self, name)
            if value not in valid:
                raise UsageError(f"{option(name)} {value}: not known; choose one of {', '.join(valid)}")
        for name in AT_LEAST_1 + AT_LEAST_0:
            value, least = getattr(self, name), int(name in AT_LEAST_1)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{option(name)} {value}: must be a whole number of at least {least}")
        for name, expected in (("learning_rate", "0 or more"), ("eps", "above 0")):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0 or (name == "eps" and value == 0):
                raise UsageError(f"{option(name)} {value}: must be a finite number, {expected}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunSpec:
        """The spec of a stored result; unknown or missing fields, or values of another type, are a UsageError."""
        from pydantic import TypeAdapter, ValidationError

        known = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or set(data) - known:
            raise UsageError(f"spec: unknown fields {sorted(set(data) - known) if isinstance(data, dict) else data!r}")
        try:
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise UsageError(f"spec: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None


@dataclass(frozen=True)
class RunOptions:
    """How a spec is run. None of it changes what is computed."""

    sessions: int = 3
    timeout_s: float = 3600.0
    profile: bool = True
    record: tuple[str, ...] = ()
    trace: bool = False
    results: str = "results"

    def __post_init__(self) -> None:
        if self.sessions < 1:
            raise UsageError(f"--sessions {self.sessions}: must be at least 1")
        if not math.isfinite(self.timeout_s) or self.timeout_s <= 0:
            raise UsageError(f"--timeout {self.timeout_s}: must be a positive number of seconds")
