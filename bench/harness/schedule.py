"""What a session does between its steps: an explicit list of (step, duties), made from the specification alone."""

from __future__ import annotations

from typing import Literal

from bench.config import RunSpec

Duty = Literal["checksum", "checkpoint", "dev", "eval", "best"]
CHECKSUM_EVERY = 200


def schedule(spec: RunSpec) -> list[tuple[int, tuple[Duty, ...]]]:
    """The duties in the state before each step at which the steps pause, the first (0) and the end of the run included.

    checksum    of the state: at every pause, so that a resumed run can prove that it goes on from the same one
    checkpoint  a snapshot, every `checkpoint_every` steps; none at the end, where the run is over
    dev         the dev split, every `eval_every` timed steps and at the end
    eval        the held-out split, before the first step and at the end; a tuning run never looks at it
    best        the held-out split again at the state of the lowest dev loss, at the end
    """
    end = spec.warmup + spec.steps
    checkpoints = set(range(spec.checkpoint_every, end, spec.checkpoint_every)) if spec.checkpoint_every else set()
    dev = {step for step in range(spec.eval_every, end, spec.eval_every) if step > spec.warmup} if spec.eval_every else set()
    pauses = {0, spec.warmup, end, *checkpoints, *dev, *range(CHECKSUM_EVERY, end, CHECKSUM_EVERY)}
    found: list[tuple[int, tuple[Duty, ...]]] = []
    for step in sorted(pauses):
        duties: list[Duty] = ["checksum"]
        if step in checkpoints:
            duties.append("checkpoint")
        if spec.evaluate:
            duties += ["dev"] if step in dev or (step == end and spec.eval_every) else []
            if not spec.tuning:
                duties += ["eval"] if step in (0, end) else []
                duties += ["best"] if step == end else []
        found.append((step, tuple(duties)))
    return found
