"""`python tests/bench/killing_replicas.py 20`: replicas killed at random moments, again and again, against a run without a kill.

Every run is 200 steps on two replicas; while it goes on, a thread sends SIGKILL to one of them after random seconds, some of them
while it loads. The losses and the last state must be those of one process that scores the items in turn.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from itertools import islice
from pathlib import Path

from killing import build_model, write_data
from test_replica_run import in_turn

from bench.config import RunSpec
from bench.defaults import complete
from bench.executors.replicated.executor import ReplicatedExecutor
from bench.harness.inputs import prepare
from bench.harness.session import batches_of as batches

STEPS = 200


def killer(executor: ReplicatedExecutor, over: threading.Event, draw: random.Random, done: list[int]) -> None:
    while not over.wait(draw.uniform(0.2, 12.0)):
        member = draw.choice(executor.pool.members)
        if member.process is not None:
            with suppress(ProcessLookupError):
                os.kill(member.process, signal.SIGKILL)
                done.append(member.number)


def run(spec: RunSpec, draw: random.Random, done: list[int]) -> list[list[float]]:
    inputs, executor, over, found = prepare(spec), ReplicatedExecutor(), threading.Event(), []
    executor.load(spec, inputs.source, inputs.task)
    thread = threading.Thread(target=killer, args=(executor, over, draw, done))
    thread.start()
    try:
        for step, batch in enumerate(islice(batches(spec, inputs), STEPS)):
            found.append(executor.step(executor.workload, step, batch).tolist())
            over.wait(0.1)  # long enough for kills to meet steps, folds, loading and waiting
            if step == STEPS // 2:
                executor.snapshot()  # whoever comes back later begins here
        over.set()
        thread.join()
        executor.pool.settle()
        assert len({executor.pool.ask("checksum", of=member.number) for member in executor.pool.members}) == 1
        print(
            f"{len(done)} kills, {executor.pool.restarts} seen as restarts, {executor.pool.repeats} messages repeated", flush=True
        )
    finally:
        over.set()
        executor.close()
    return found


def soak(kills: int, seed: int) -> None:
    draw, done = random.Random(seed), list[int]()
    with tempfile.TemporaryDirectory() as folder:
        model, data = build_model(Path(folder) / "model"), write_data(Path(folder) / "data.jsonl")
        given = {"executor": "eager", "model": str(model), "data": str(data), "device": "cpu", "batch_size": 4, "interval": 7}
        method = {"queries": 2, "learning_rate": 1e-4, "dtype": "float16", "checksum_every": 10, "replicas": "2"}
        spec = complete(given | method)
        expected = in_turn(spec.alone(), STEPS)
        while len(done) < kills:
            assert run(spec, draw, done) == expected, f"another trajectory; seed {seed}"
    print(f"{len(done)} kills, every trajectory the same bit for bit")


if __name__ == "__main__":
    soak(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
