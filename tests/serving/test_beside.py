"""Training in a process beside the engine's: what it scores, what users read meanwhile, and what is left when it is gone."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from live import TOKEN, Crowd, Live, logprobs, prompt, serving

from baselines.eager.executor import EagerExecutor
from bench.journal.file import read_journal
from bench.registry import make_workload
from bench.serving import process
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


def training_process(live: Live) -> int:
    """Of the server, by its name."""
    assert live.process is not None
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, rest = path.read_text().split(" (", 1)
            name, fields = rest.rsplit(") ", 1)
            if name == process.NAME and int(fields.split()[2]) == live.process.pid:
                return int(pid)
    raise AssertionError("no process trains")


def test_it_stands_still_while_users_are_there_and_goes_on_after_them(live: Live) -> None:
    live.post("start", policy="idle-only")
    trains, seen = process.Process(training_process(live), [0], 1), list[float]()
    live.until(live.training()["step"] + 1)
    body = {"model": "base", "prompt": prompt(8), "max_tokens": 100, "ignore_eos": True, "stream": True}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.stream("POST", live.url + "/v1/completions", json=body, headers=headers, timeout=120) as answer:
        for line in answer.iter_lines():
            seen += [trains.seconds()] if line.startswith("data: {") else []
    assert len(seen) > 50 and seen[-6] - seen[5] < 0.01 < seen[5], seen
    live.until(live.training()["step"] + 2)
    live.post("stop")


def test_where_it_is_killed_users_are_served_on_and_the_server_started_again_goes_on(live: Live) -> None:
    live.post("publish")
    question = prompt(30)
    answer, before = logprobs(live.ask("tuned", question, 8)), live.training()
    live.post("start", policy="none")
    os.kill(training_process(live), signal.SIGKILL)
    while (found := live.training())["error"] is None:
        time.sleep(0.05)
    assert "has ended; start the server again" in found["error"] and not found["training"]
    refused = live.call("POST", "/training/publish", {})
    assert refused.status_code == 409 and "has ended" in refused.json()["error"]
    assert logprobs(live.ask("tuned", question, 8, cache_salt="past the cache")) == answer
    live.end()
    live.start()
    after = live.training()
    assert after["version"] == before["version"] and after["step"] >= before["step"]
    assert logprobs(live.ask("tuned", question, 8)) == answer
    live.post("start")
    live.until(after["step"] + 2)
