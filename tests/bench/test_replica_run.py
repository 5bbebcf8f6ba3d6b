"""Replicas from the command line: a run that a second terminal joins, one whose driver is killed, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from killing import Killable, build_model, trajectory, write_data

from bench.config import RunSpec
from bench.defaults import complete
from bench.errors import UsageError
from bench.executors.replicated.cluster import need, room
from bench.executors.replicated.items import combine, cut
from bench.harness.inputs import prepare
from bench.harness.session import batches_of as batches
from bench.journal.file import SUFFIX, read_journal
from bench.registry import make_executor, make_workload

HERE = "127.0.0.2"
"""Loopback, and none of the names that Ray replaces by the machine's address."""
SECRET = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b5a1" * 8, "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def terminal(*arguments: str, folder: str) -> Iterator[subprocess.Popen[bytes]]:
    """`ray start` in a terminal of its own, ended as by Ctrl-C."""
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        *arguments,
        "--node-ip-address",
        HERE,
        "--num-cpus",
        "1",
        "--block",
    ]
    with open(Path(folder) / f"terminal{len(arguments)}.log", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | SECRET)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def steps_in(results: Path) -> int:
    found = list(results.glob(f"local/*{SUFFIX}"))
    return found[0].read_bytes().count(b'"event":"step"') if found else 0


def until(reached: Callable[[], bool], seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_second_terminal_joins_a_running_job(tmp_path: Path) -> None:
    """The steps of docs/scale.md, one after the other; the losses are those of one process that scores the items in turn."""
    with socket.socket() as free:
        free.bind((HERE, 0))
        address = f"{HERE}:{free.getsockname()[1]}"
    model, data, results = build_model(tmp_path / "model"), write_data(tmp_path / "data.jsonl"), tmp_path / "results"
    method = {"queries": "2", "interval": "4", "batch_size": "4", "learning_rate": "1e-4", "steps": "2000", "warmup": "0"}
    words = [word for name, value in method.items() for word in ("--" + name.replace("_", "-"), value)]
    given = ["--executor", "eager", "--model", str(model), "--data", str(data), "--device", "cpu", *words, "--no-profile"]
    scale = ["--replicas", "auto", "--ray-address", address, "--sessions", "1", "--results", str(results)]
    with tempfile.TemporaryDirectory(prefix="zo-ray-") as folder:
        port = address.partition(":")[2]
        with terminal("--head", "--port", port, "--include-dashboard", "false", "--temp-dir", folder, folder=folder):
            until(lambda: _listens(address))
            command = [sys.executable, "-m", "bench", "run", *given, *scale]
            run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | SECRET)
            until(lambda: steps_in(results) >= 5 or run.poll() is not None)
            assert run.poll() is None, run.communicate()
            with terminal("--address", address, folder=folder):
                out, err = run.communicate(timeout=400)
    assert run.returncode == 0, err
    (path,) = results.glob(f"local/*{SUFFIX}")
    session = json.loads(Path(json.loads(out.splitlines()[-1])["path"]).read_text())["sessions"][0]
    assert session["details"]["joined_late"] == 1 and session["details"]["replicas"] == 2
    spec = complete(read_journal(path).header.result.spec | {"replicas": None, "ray_address": None})
    assert session["losses"][:30] == in_turn(spec, 30)


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as tried:
        return tried.connect_ex((host, int(port))) == 0


def in_turn(spec: RunSpec, steps: int) -> list[list[float]]:
    """What replicas do, without any: item after item in this process."""
    inputs, workload, executor, found = prepare(spec), make_workload(spec), make_executor(spec.executor), []
    executor.load(spec, inputs.source, inputs.task)
    for step, batch in enumerate(islice(batches(spec, inputs), steps)):
        plan = workload.plan(step)
        items = cut(plan, batch, 1)
        scored = [executor.score(batch[low:high], plan[first:last]).tolist() for first, last, low, high in items]
        losses = combine(scored, items, len(plan), batch, inputs.task.objective)
        executor.replay(workload, step, losses)
        found.append(losses.tolist())
    executor.close()
    return found


def test_a_killed_driver_goes_on_with_another_number_of_replicas(tmp_path: Path) -> None:
    run = Killable.make(tmp_path, "eager", queries=2, replicas="2")
    assert run.begin("saved:1") == -signal.SIGKILL
    assert run.resume(replicas="1") == 0
    alone = Killable(tmp_path / "alone", run.model, run.data, "eager", {"queries": 2, "replicas": "1"})
    assert trajectory(run.session) == trajectory(alone.here().session)
    assert not list(Path(tempfile.gettempdir()).glob(f"zo-ray-{os.getpid()}-*"))


def test_a_replica_may_have_several_ranks(tmp_path: Path) -> None:
    """One of two ranks, through Ray: the losses are those of one process that scores the items in turn."""
    given = {"steps": 12, "learning_rate": 1e-4, "checkpoint_every": 0, "eval_every": 0}
    run = Killable.make(tmp_path, "vllm", replicas="1", tensor_parallel=2, **given)
    assert run.begin() == 0
    details, losses = run.session.details, run.session.losses
    assert details["replicas"] == 1 and len(losses) == 16
    spec = run.result.spec | {"replicas": None, "tensor_parallel": 1, "executor": "eager", "loop": "requests"}
    expected = in_turn(RunSpec.from_json(spec), 16)
    assert max(abs(a - b) for one, two in zip(losses, expected, strict=True) for a, b in zip(one, two, strict=True)) < 2e-5


SPEC = {"model": "opt-tiny", "device": "cpu", "executor": "eager"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"replicas": "0"}, "--replicas 0: must be a whole number of at least 1, or auto"),
        ({"replicas": "two"}, "--replicas two: must be a whole number"),
        ({"shares": 2}, "--shares 2: is about replicas; give --replicas N too"),
        ({"ray_address": "10.0.0.1:6379"}, "--ray-address 10.0.0.1:6379: is about replicas"),
        ({"replicas": "2", "shares": 99}, "--shares 99: at most one for each of the --batch-size 16 examples"),
        ({"replicas": "2", "executor": "official"}, "copies of --executor official do not stay alike"),
        ({"tensor_parallel": 2}, "--tensor-parallel 2: --executor eager runs on one device; use --executor vllm"),
        ({"tensor_parallel": 2, "executor": "vllm", "workload": "mezo-m"}, "mezo-m keeps running means"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        complete(SPEC | given)


def test_every_replica_has_something_to_score() -> None:
    def shares(**given: Any) -> int:
        return complete(SPEC | given).shares

    assert shares(replicas="4", queries=2) == 2
    assert shares(replicas="2", queries=2) == shares(replicas="auto") == shares() == 1
    assert shares(replicas="3", queries=2, shares=5) == 5


def test_a_replica_is_on_one_machine_as_a_whole() -> None:
    """Two replicas of two GPUs each: on four of one machine, or on two machines that have two each, not across two of three."""
    spec = RunSpec(**(complete(SPEC | {"executor": "vllm", "tensor_parallel": 2, "replicas": "2"}).to_json() | {"column": ()}))
    assert need(spec) == {"CPU": 2.0, "GPU": 0.0}
    two = {"CPU": 1.0, "GPU": 2.0}
    assert room([{"CPU": 16.0, "GPU": 4.0}], two) == 2
    assert room([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}], two) == 2
    assert room([{"CPU": 8.0, "GPU": 3.0}], two) == room([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}], two) == 1
    assert room([{"CPU": 8.0}], two) == 0
