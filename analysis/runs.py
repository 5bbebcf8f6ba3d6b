"""Result files as the analysis sees them: what a run is called, its sample, and whether two runs may be compared."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.statistics import Sample
from analysis.summary import Summary, summarize
from bench.api import FACTORED
from bench.config import RunSpec
from bench.errors import UsageError
from bench.registry import workload_class
from bench.result import Result, SessionResult, read_results
from bench.steptimes import step_times

FEATURES = ("batching", "kv", "lora")
SCALE = (
    "replicas",
    "shares",
    "ray_address",
    "replica_cpus",
    "replica_gpus",
    "replica_timeout_s",
    "checksum_every",
    "tensor_parallel",
)
OWN = ("executor", *FEATURES, "loop", "directions", "upstream", "variant", "admission", "max_tokens", "quantization", *SCALE)
"""Fields of the specification in which the two sides of a comparison may differ."""
ADDED = {found.name: found.default for found in fields(RunSpec) if found.default is not MISSING}
"""What a result from before a field was added ran with."""


@dataclass(frozen=True, eq=False)
class Run:
    """One result file. `named` is true when the user gave this very file."""

    path: Path
    result: Result
    named: bool = False

    @property
    def spec(self) -> dict[str, Any]:
        return self.result.spec

    def value(self, name: str) -> Any:
        return self.spec[name]

    @property
    def rank(self) -> int | None:
        """Of its directions; None where they have none. A workload of a package that is not here is taken to have one."""
        try:
            factored = workload_class(self.spec["workload"]).kind in FACTORED
        except UsageError:
            factored = True
        return int(self.spec["rank"]) if factored else None

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self.spec[name] for name in FEATURES)

    @cached_property
    def sessions(self) -> list[SessionResult]:
        """Those that passed and were timed."""
        return [s for s in self.result.sessions if s.status == "passed" and s.step_s]

    @cached_property
    def served(self) -> list[SessionResult]:
        """Those that passed and in which users of a server were served."""
        return [s for s in self.result.sessions if s.status == "passed" and "serving" in s.findings]

    @property
    def admission(self) -> str:
        """The policy of a server beside whose users training ran; empty for other runs."""
        return str(self.spec.get("admission", ""))

    @property
    def model_runner(self) -> str | None:
        """The class that ran the model, from the last session that names one."""
        return next((s.model_runner for s in reversed(self.result.sessions) if s.model_runner), None)

    @cached_property
    def summary(self) -> Summary:
        return summarize(self.sessions)

    def finding(self, recorder: str) -> dict[str, Any] | None:
        """What a recorder found in the last session that had it watch."""
        return next((s.findings[recorder] for s in reversed(self.result.sessions) if recorder in s.findings), None)

    @property
    def usable(self) -> bool:
        """Timings count only when no session scored wrongly."""
        return bool(self.sessions) and not self.incorrect

    @property
    def incorrect(self) -> bool:
        return self.result.status == "incorrect" or any(s.status == "incorrect" for s in self.result.sessions)

    @property
    def unit(self) -> str:
        """What one value of the sample is: a `session`, or a `block` inside a loaded process."""
        return next((s.unit for s in reversed(self.result.sessions)), "session")

    @property
    def variant(self) -> str:
        """What tells apart two points with the same features, such as an uncompiled runtime; empty for the usual one."""
        return str(self.spec["variant"])

    @property
    def label(self) -> str:
        """`official`, `vllm kv=shared`: speed-ups are quoted for both ways of scoring on vLLM; upstream's code is named. Of a
        server it is the policy."""
        if self.admission:
            return f"serving, {self.admission}"
        kv = f" kv={self.spec['kv']}" if self.spec["executor"] == "vllm" else ""
        loop = " (requests)" if self.spec["executor"] == "vllm" and self.spec["loop"] == "requests" else ""
        checkout = " (upstream)" if self.spec["upstream"] else ""
        bound = f", {found:,} tokens a forward" if (found := (ADDED | self.spec)["max_tokens"]) else ""
        copies = f" x{self.spec['replicas']}" if self.spec.get("replicas") else ""
        copies += f" TP={self.spec['tensor_parallel']}" if self.spec.get("tensor_parallel", 1) > 1 else ""
        bits = {"none": "", "bitsandbytes": " 4-bit"}.get(held := self.spec.get("quantization", "none"), f" {held}")
        named = f"{self.spec['executor']}{bits}{copies}{kv}{loop}{checkout}{bound}"
        return named + (f", {self.variant}" if self.variant else "")

    def point(self, own: Sequence[str] = OWN) -> tuple[str, ...]:
        """Runs of one identity with the same point measure the same thing."""
        known = ADDED | self.spec
        return (*(str(known[name]) for name in own), self.unit)

    @cached_property
    def sample(self) -> Sample:
        """Amortised step seconds of each session or block, keyed by what pairs it with its neighbours in other runs."""
        return {(self.result.pair_id or self.result.id, s.index): step_times(s).best_known for s in self.sessions}

    def identity(self, own: Sequence[str] = OWN) -> dict[str, Any]:
        """What has to be equal before timings are compared; `own`: fields of the specification that need not be."""
        environment = self.result.environment
        found: dict[str, Any] = {name: value for name, value in (ADDED | self.spec).items() if name not in own}
        if "workload" in found:
            found["workload_version"] = self.result.workload_version
        found |= {
            "data digest": self.result.data.get("digest"),
            "hardware": environment.get("device"),
            "driver": str(environment.get("driver") or "").split(".")[0] or None,
            "torch": environment.get("torch"),
            "vllm": environment.get("vllm"),
            "sample unit": self.unit,
        }
        if self.spec["device"] == "cpu":
            found["threads"] = environment.get("threads")
        return found


def find(runs: Iterable[Run], **wanted: str) -> Run | None:
    """The newest run whose specification (or variant) has these values."""
    return next((run for run in reversed(list(runs)) if all(run.value(k) == v for k, v in wanted.items())), None)


def differences(a: Run, b: Run, own: Sequence[str] = OWN) -> dict[str, tuple[Any, Any]]:
    """Keys in which two runs differ and that forbid a comparison, with both values; empty when they may be compared."""
    left, right = a.identity(own), b.identity(own)
    found = {key: (left.get(key), right.get(key)) for key in left | right}
    if a.spec["executor"] == b.spec["executor"] == "vllm":
        found["model runner"] = (a.model_runner, b.model_runner)
    return {key: pair for key, pair in found.items() if pair[0] != pair[1]}


def explain(found: dict[str, tuple[Any, Any]]) -> str:
    """The differing keys in words: `dtype (float16, float32), steps (20, 100)`."""
    return ", ".join(f"{key} ({left}, {right})" for key, (left, right) in found.items())


def size_of(model: str) -> tuple[float, str]:
    """Sorts models by the parameters in their names, opt-1.3b before opt-13b; names without a number first."""
    found = re.search(r"(\d+(?:\.\d+)?)([mb])\b", model.lower())
    return (float(found[1]) * (1e6 if found[2] == "m" else 1e9) if found else 0.0), model


def load_runs(paths: Iterable[str | Path], skip: Callable[[str], None] | None = None) -> list[Run]:
    """Runs of the files given and of all in the folders given, oldest first; a file named twice is there twice.

    skip    called with one line for each file of a folder that cannot be read (default: the line goes to stderr)
    """
    return sorted(_load(paths, skip or _say), key=lambda run: run.result.created)


def _load(paths: Iterable[str | Path], skip: Callable[[str], None]) -> Iterator[Run]:
    for given in map(Path, paths):
        for path, result in read_results([given], skip):
            yield Run(path, result, named=given.is_file())


def _say(text: str) -> None:
    print(f"left out: {text}", file=sys.stderr)
