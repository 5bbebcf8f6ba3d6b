"""A process that is a fork of another: what it does when nobody calls, how it is called, stopped, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.executors.vllm.views import share_slots
from bench.serving import process
from bench.serving.messages import Caller
from bench.serving.publishing import Refused

MOST = 512
VALUES = [0.1, 1e-45, float(torch.tensor(1 / 3)), -0.0, float("inf")]


class Counting:
    """Counts as long as there is something left, 100 tokens a piece."""

    def __init__(self, count: process.Count, shared: torch.Tensor) -> None:
        self._count, self._shared = count, shared
        self.left = self.done = 0

    @property
    def waits(self) -> bool:
        return self.left > 0

    def advance(self) -> None:
        time.sleep(0.002)
        self.left, self.done = self.left - 1, self.done + 1
        self._count(100)

    def begin(self, pieces: int) -> None:
        self.left = pieces

    def state(self) -> list[Any]:
        return [self.done, os.sched_getscheduler(0) == os.SCHED_IDLE, torch.get_num_threads()]

    def write(self, value: float) -> None:
        self._shared.fill_(value)

    def echo(self, values: list[float]) -> list[float]:
        return values

    def fail(self) -> None:
        raise ValueError("this cannot be done")


class Slots:
    """As vLLM's manager of adapters has them."""

    def __init__(self) -> None:
        self.lora_a_stacked, self.lora_b_stacked = (torch.zeros(2, 3),), (torch.ones(4),)
        self.modules = {"layer": self}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[process.Process, str, Slots]]:
    slots, path, cores = Slots(), str(tmp_path / "at"), os.sched_getaffinity(0)
    share_slots(slots)
    found = process.start(lambda count: Counting(count, slots.lora_a_stacked[0]), path, MOST)
    assert found is not None
    if len(cores) > 1:
        assert os.sched_getaffinity(found.pid) == {max(cores)} and os.sched_getaffinity(0) == cores - {max(cores)}
    yield found, path, slots
    process.keep_to(cores)
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(found.pid, signal.SIGKILL)
        os.waitpid(found.pid, 0)


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_answers_between_pieces_of_its_work_and_tells_what_went_wrong(started: tuple[process.Process, str, Slots]) -> None:
    found, path, slots = started

    async def calls() -> None:
        call = await Caller.connect(path)
        assert await call("echo", VALUES) == VALUES
        with pytest.raises(RuntimeError, match="ValueError: this cannot be done"):
            await call("fail")
        await call("begin", 20)
        answers = [await call("state") for _ in range(5)]
        assert answers[0][0] < 20 and answers[0][1:] == [True, 1]
        await call("write", 7.0)
        while (await call("state"))[0] < 20:
            await asyncio.sleep(0.01)

    asyncio.run(calls())
    assert slots.lora_a_stacked[0].eq(7.0).all() and slots.lora_b_stacked[0].eq(1.0).all()
    assert Path(f"/proc/{found.pid}/comm").read_text().strip() == process.NAME
    assert found.seconds() > 0
    assert os.waitpid(found.pid, 0)[1] == 0  # its caller has gone


def test_it_scores_as_much_as_rounds_allow_and_stands_still_after_that(started: tuple[process.Process, str, Slots]) -> None:
    found, path, _ = started

    async def calls() -> None:
        call = await Caller.connect(path)
        await call("begin", 1000)
        found.allow(0)
        until(lambda: status(found.pid) == "T")
        stood = (before := int(found._scored[0])) + 100 - before % 100
        for _ in range(200):
            found.allow(25)
            await asyncio.sleep(0.002)
        scored = int(found._scored[0]) - stood
        assert 0.5 * 200 * 25 < scored <= 200 * 25 + MOST
        found.free()
        while (await call("state"))[0] < 1000:
            await asyncio.sleep(0.01)
        await call("begin", 1000)
        found.allow(200)  # what it scored with nobody there is not charged
        until(lambda: status(found.pid) != "T")

    asyncio.run(calls())


def test_where_it_is_killed_its_caller_is_told_and_the_engine_goes_on(started: tuple[process.Process, str, Slots]) -> None:
    found, path, _ = started

    async def calls() -> None:
        call = await Caller.connect(path)
        os.kill(found.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(Refused, match="has ended; start the server again"):
                await call("state")

    asyncio.run(calls())
    os.waitpid(found.pid, 0)
    found.allow(0)
    found.free()


def test_where_there_is_no_work_there_is_no_process(tmp_path: Path) -> None:
    def fails(count: process.Count) -> None:
        raise ValueError("no weights")

    assert process.start(lambda count: None, str(tmp_path / "one"), MOST) is None
    with pytest.raises(OSError, match="ValueError: no weights"):
        process.start(fails, str(tmp_path / "two"), MOST)
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pids in children for pid in pids]
    assert process.NAME not in names


ENGINE = """
import sys, time
import torch
sys.path.insert(0, sys.argv[2])
from test_process import Counting
from bench.serving import process
found = process.start(lambda count: Counting(count, torch.zeros(1)), sys.argv[1], 512)
found.allow(0)
print(found.pid, flush=True)
time.sleep(600)
"""


def test_it_ends_with_the_engine_also_where_it_stands_still(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENGINE, str(tmp_path / "at"), str(Path(__file__).parent)]
    engine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert engine.stdout is not None
    pid = int(engine.stdout.readline())
    until(lambda: status(pid) == "T")
    engine.kill()
    engine.wait()
    until(lambda: not Path(f"/proc/{pid}").exists() or status(pid) == "Z")
