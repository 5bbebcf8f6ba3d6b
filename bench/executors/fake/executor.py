"""An executor without a model: losses and clock come from a script, so the harness can be tested exactly and in no time.

The script is JSON, given with `--data`; every field is optional:
    step_s      seconds of the timed steps, repeated in turn; a list of lists gives one list per session
    losses      mean loss of the steps, repeated in turn
    accuracy    held-out accuracy of the evaluations, in turn
    error       added to the losses of the correctness check
    at          {"step": what}: hang, crash (the process dies), raise, out_of_memory, nan, or orphan (leaves a child behind)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.api import Inputs, Probe, Snapshot, Update, Workload
from bench.config import RunSpec
from bench.data import Batch, Example, TaskData
from bench.errors import UsageError
from workloads.steps import core_step

EXAMPLES = tuple(Example((1, 2, 3 + i), ((10,), (11,)), i % 2) for i in range(64))
SLOPE = 10.0


@dataclass(frozen=True)
class Script:
    step_s: list[Any] = field(default_factory=lambda: [0.01])
    losses: list[float] = field(default_factory=lambda: [0.7])
    accuracy: list[float] = field(default_factory=lambda: [0.5, 0.75])
    error: float = 0.0
    at: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | None) -> Script:
        if path is None:
            return cls()
        try:
            data = json.loads(Path(path).read_text())
            unknown = set(data) - {f.name for f in fields(cls)}
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"--data {path}: not a script of the fake executor ({error})") from None
        if unknown:
            raise UsageError(f"--data {path}: unknown fields {', '.join(sorted(unknown))}")
        return cls(**data)

    def seconds(self, step: int, session: int) -> float:
        times = self.step_s[session % len(self.step_s)] if isinstance(self.step_s[0], list) else self.step_s
        return float(times[step % len(times)])

    def loss(self, probe: Probe) -> float:
        """The step's scripted loss, leaning along the direction by SLOPE per unit of shift."""
        return self.losses[probe.direction.step % len(self.losses)] + SLOPE * probe.shift


class ScriptedClock:
    """Time that passes only when a step says so."""

    lag = 0

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        return self.now

    def seconds(self, start: float, end: float) -> float:
        return round(end - start, 9)

    def fetch(self, losses: Any) -> Any:
        return losses

    def synchronize(self) -> None:
        pass


class FakeExecutor:
    """Scores by script. `calls` keeps the order of what was asked of it."""

    name = "fake"
    leaves_residue = False

    def __init__(self) -> None:
        self.calls: list[str] = []

    def load(self, spec: RunSpec, source: Any, task: Any) -> None:
        self.calls.append("load")
        self.session, self.clock = source.session, source.clock
        self.script: Script = source.script
        self.checked = False
        self.evaluations = 0

    def score(self, batch: Batch, probes: Sequence[Probe]) -> Any:
        self.calls.append("score")
        step = probes[0].direction.step
        losses = np.array([self.script.loss(probe) for probe in probes], dtype=np.float32)
        if not self.checked:
            self.checked = True
            return losses + np.float32(self.script.error)
        self.clock.now += self.script.seconds(step, self.session)
        return self._incident(self.script.at.get(str(step)), losses)

    def apply(self, update: Update) -> None:
        self.calls.append("apply")

    def step(self, workload: Workload, step: int, batch: Batch) -> Any:
        return core_step(self, workload, step, batch)

    def switch(self, spec: RunSpec) -> None:
        self.calls.append("switch")
        self.checked, self.evaluations = False, 0  # as if it had been loaded anew

    def evaluate(self, examples: Batch) -> Any:
        """The scripted share of the examples gets its label right, each with a margin of 1."""
        import torch

        self.calls.append("evaluate")
        share = self.script.accuracy[self.evaluations % len(self.script.accuracy)]
        self.evaluations += 1
        logprobs = torch.zeros(len(examples), 2)
        for i, example in enumerate(examples):
            logprobs[i, example.label] = 0.0 if i < round(share * len(examples)) else -2.0
            logprobs[i, 1 - example.label] = -1.0
        return logprobs

    def generate(self, examples: Batch) -> list[tuple[int, ...]]:
        self.calls.append("generate")
        return [example.options[example.label] for example in examples]

    def replay(self, workload: Workload, step: int, losses: Any) -> None:
        self.calls.append("replay")

    def snapshot(self) -> Snapshot:
        return Snapshot({})

    def restore(self, snapshot: Snapshot) -> None:
        self.calls.append("restore")

    def checksum(self) -> str:
        return ""

    def seed(self, step: int) -> int:
        return 0

    def parameters(self) -> dict[str, Any]:
        return {}

    def details(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def memory_parts(self) -> dict[str, int]:
        return dict.fromkeys(("weights", "kv_pool", "adapter_slots", "accumulated_state", "running_means", "master"), 0)

    def work(self, batch: Batch, probes: Sequence[Probe], *then: Sequence[Probe]) -> dict[str, int]:
        names = ("rows", "tokens_scored", "tokens_real", "head_rows", "weight_bytes_written", "fold_bytes_written")
        return dict.fromkeys((*names, "adapter_bytes_written", "host_syncs"), 0) | {"forwards": 1}

    def close(self) -> None:
        self.calls.append("close")

    @staticmethod
    def _incident(what: str | None, losses: Any) -> Any:
        match what:
            case "hang":
                time.sleep(3600)
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "raise":
                raise RuntimeError("scripted error")
            case "out_of_memory":
                raise MemoryError("scripted: 1 TiB asked")
            case "nan":
                losses[-1] = np.nan
            case "orphan":
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
                time.sleep(3600)
        return losses


def inputs(spec: RunSpec, session: int) -> Inputs:
    """What a session of the fake executor needs: its script, 64 made-up examples and a clock that the script drives."""
    script, clock = Script.read(spec.data), ScriptedClock()
    source = SimpleNamespace(name=spec.model, weights=spec.weights, script=script, clock=clock, session=session)
    task = TaskData(EXAMPLES, EXAMPLES, EXAMPLES, "fake", 0, 4, True, {"examples": len(EXAMPLES)})

    def reference(batch: Batch, probes: Sequence[Probe], dtype: str) -> Any:
        return np.array([script.loss(probe) for probe in probes], dtype=np.float32)

    return Inputs(source, task, reference, clock, profiled=False)
