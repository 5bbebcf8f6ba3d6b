"""Probes that are passes between the scheduler's rounds: what training scores, what its users read, and what is left behind."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from live import Crowd, Live, logprobs, prompt, serving

from baselines.eager.executor import EagerExecutor
from bench.journal.file import read_journal
from bench.registry import make_workload
from workloads.steps import scored
from workloads.tasks.batches import batch_stream
from workloads.tasks.load import load_task

STEPS = 30


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, opt_tiny: Any) -> Iterator[Live]:
    options = "--workload conservative --probes passes --publish-every 10 --policy fixed --round-requests 16"
    yield from serving(tmp_path_factory.mktemp("passes"), f"{options} --kv-mib 32 --dev-examples 20")


def test_users_read_the_same_bits_while_it_trains_and_a_crowd_fails_in_nothing(live: Live) -> None:
    questions = [prompt(length) for length in (1, 2, 3, 4, 15, 16, 17, 40, 63, 90)]
    before = [logprobs(live.ask("base", question, 6, cache_salt="one")) for question in questions]
    live.post("start")
    live.until(2)
    assert before == [logprobs(live.ask("base", question, 6, cache_salt=uuid.uuid4().hex)) for question in questions]
    crowd = Crowd(live, 200)
    crowd.start()
    crowd.join()
    assert not crowd.failed and crowd.gone + crowd.served == 200
    live.until(STEPS)
    live.post("stop")
    found = live.training()
    assert found["version"] >= 1 and found["memory_bytes"]["packed_weights"] > 0
    assert (found["admission"]["held"], found["admission"]["inside"]) == (0, 0)


def test_losses_are_those_of_the_eager_loop(live: Live, opt_tiny: Any) -> None:
    """Of both rounds that a conservative step scores; every step starts from the losses of the server's."""
    journal = read_journal(Path(live.folder) / "state" / "serving.journal.jsonl")
    history, spec = journal.sessions[0], journal.header.spec
    task, workload, executor = load_task(spec.task, source=opt_tiny), make_workload(spec), EagerExecutor()
    try:
        executor.load(replace(spec, executor="eager"), opt_tiny, task)
        for step, batch in zip(range(STEPS), batch_stream(task.train, spec.batch_size, spec.seed), strict=False):
            recorded = torch.tensor(history.steps[step].losses)
            losses = scored(executor, workload, step, batch)
            assert len(recorded) == 5 and torch.allclose(losses, recorded, rtol=0, atol=2e-5), step
            executor.apply(workload.update(step, recorded))
    finally:
        executor.close()
