"""Replicas on a real Ray cluster of this machine: they score what one scores, and survive what happens to them.

One cluster and one set of replicas serve all tests; between two tests the state goes back to the beginning.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sabotage import Sabotaged

from bench.api import Snapshot
from bench.config import RunSpec
from bench.data import TaskData
from bench.registry import make_executor, make_workload

STEPS = 8
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Six cores that do not exist: what is tested is who does what, not how fast."""
    from bench.executors.replicated.cluster import local_settings

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="zo-ray-") as folder:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        settings = local_settings(6, 128 << 20, folder)
        import ray

        ray.init(**settings)
        yield ray
        ray.shutdown()


def spec_of(tiny_spec: Make, executor: str = "eager", **changes: Any) -> RunSpec:
    chosen = {"replicas": "2", "queries": 2, "dtype": "float16", "interval": 3, "checksum_every": 1, "replica_timeout_s": 500.0}
    return tiny_spec("lozo", executor, **(chosen | changes))


class Replicas:
    """A loaded executor that goes back to its untrained state for every test."""

    def __init__(self, executor: Sabotaged, spec: RunSpec, task: TaskData) -> None:
        self.executor, self.spec, self.task = executor, spec, task
        self.start: Snapshot = executor.snapshot()

    def anew(self, **changes: Any) -> Sabotaged:
        self.executor.restore(self.start)
        self.executor.pool.limit = None
        self.executor.spec = replace(self.spec, **changes)
        return self.executor

    def run(self, executor: Sabotaged, steps: int = STEPS) -> list[list[float]]:
        method, found = executor.workload, []
        for step in range(steps):
            found.append(executor.step(method, step, self.task.train[: 8 - step % 3]).tolist())
        return found


@pytest.fixture(scope="module")
def replicas(cluster: Any, tiny_spec: Make, tiny_source: Make, tiny_task: TaskData, tmp_path_factory: Any) -> Iterator[Replicas]:
    spec, executor = spec_of(tiny_spec), Sabotaged()
    executor.folder = tmp_path_factory.mktemp("incidents")
    executor.load(spec, tiny_source("opt"), tiny_task)
    yield Replicas(executor, spec, tiny_task)
    executor.close()


@pytest.fixture(scope="module")
def expected(replicas: Replicas) -> tuple[list[list[float]], str]:
    """Losses and last state of one replica that nothing happens to."""
    executor = replicas.anew()
    executor.pool.limit = 1
    return replicas.run(executor), executor.checksum()


def test_two_replicas_score_what_one_scores_to_the_last_bit(replicas: Replicas, expected: Any) -> None:
    executor = replicas.anew()
    assert (replicas.run(executor), executor.checksum()) == expected
    shared = [timing for timing in list(executor.pool.timings)[-STEPS:] if len(timing.answers) == 2]
    assert len(shared) >= STEPS / 2  # but for the first, before which both go back to the beginning


def test_they_follow_the_executor_without_replicas(replicas: Replicas, expected: Any, tiny_source: Make) -> None:
    alone = make_executor("eager")
    alone.load(replicas.spec.alone(), tiny_source("opt"), replicas.task)
    method = make_workload(replicas.spec)
    for step, losses in enumerate(expected[0]):
        found = alone.score(replicas.task.train[: 8 - step % 3], method.plan(step))
        assert torch.allclose(found, torch.tensor(losses), rtol=0, atol=1e-3), step  # float16, batched otherwise
        alone.apply(method.update(step, torch.tensor(losses)))
    assert alone.checksum() == expected[1]  # the same losses move the same weights, bit for bit


def test_shares_of_the_minibatch_add_up_to_it(replicas: Replicas) -> None:
    """Uneven ones: 8 examples in 3 shares. float16 forwards of other batches differ by their rounding; the sums do not."""
    executor = replicas.anew(shares=3)
    method, batch = executor.workload, replicas.task.train
    found = executor.score(batch, method.plan(0)).double()
    single = [executor.score([example], method.plan(0)).double() for example in batch]
    assert torch.allclose(found, torch.stack(single).mean(0), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("point", "count"), [("score", 3), ("fold", 4), ("apply", 6), ("load", 1)])
def test_a_killed_replica_comes_back_and_nothing_is_lost_or_done_twice(
    point: str, count: int, replicas: Replicas, expected: Any
) -> None:
    executor = replicas.anew()
    before = executor.pool.restarts
    incident = executor.plan(point, 1, count)
    if point == "load":  # killed while it starts again after a kill
        executor.plan("score", 1, 2)
    assert replicas.run(executor) == expected[0]
    deadline = time.monotonic() + 400
    while (incident.exists() or not executor.pool.members[1].free) and time.monotonic() < deadline:
        executor.pool.rest()
    assert not incident.exists() and executor.pool.restarts > before
    assert [executor.pool.ask("checksum", of=number) for number in (0, 1)] == [expected[1]] * 2


def test_a_straggler_is_not_waited_for(replicas: Replicas, expected: Any) -> None:
    executor = replicas.anew()
    replicas.run(executor, 4)  # what is usual
    executor, before = replicas.anew(), executor.pool.repeats
    executor.plan("score", 1, 2, "sleep 20")
    assert replicas.run(executor) == expected[0]
    assert executor.pool.repeats > before and executor.pool.members[1].call is not None  # it sleeps still
    executor.pool.settle()


def test_a_replica_that_differs_is_found_and_put_right(replicas: Replicas, expected: Any) -> None:
    executor = replicas.anew()
    before = len(executor.pool.checksums.differed)
    executor.plan("apply", 1, 3, "flip")
    replicas.run(executor)
    executor.pool.settle()
    assert [number for _, number in executor.pool.checksums.differed[before:]] == [1]
    assert len({executor.pool.ask("checksum", of=number) for number in (0, 1)}) == 1
    assert "replica 1 had another state" in executor.details()["warnings"][-1]


def test_a_step_is_a_few_hundred_bytes(replicas: Replicas) -> None:
    executor = replicas.anew()
    executor.pool.timings.clear()
    replicas.run(executor)
    assert 100 < executor.details()["bytes_per_replica_and_step"] < 1024


def test_silence_ends_with_what_to_do(replicas: Replicas) -> None:
    executor = replicas.anew()
    executor.pool.timeout_s = 2.0
    for number in (0, 1):
        executor.plan("score", number, 1, "sleep 6")
    try:
        with pytest.raises(TimeoutError, match=r"no answer from replica 0, 1 for 2 s; .* --replica-timeout"):
            replicas.run(executor, 1)
    finally:
        executor.pool.timeout_s = 500.0
        executor.pool.settle()


def test_one_that_joins_late_catches_up_by_replaying(replicas: Replicas, expected: Any) -> None:
    executor = replicas.anew()
    losses = replicas.run(executor, 4)
    executor.pool.wanted = None  # as --replicas auto: the cluster has room for more
    executor.pool.rest()
    deadline = time.monotonic() + 400
    while len(executor.pool.present) < 3 and time.monotonic() < deadline:
        executor.pool.rest()
    executor.pool.wanted = 3
    for step in range(4, STEPS):
        losses.append(executor.step(executor.workload, step, replicas.task.train[: 8 - step % 3]).tolist())
    executor.pool.settle()
    assert losses == expected[0] and executor.pool.joined_late >= 1
    assert executor.pool.ask("checksum", of=2) == expected[1]


def test_two_engines_of_vllm_score_what_one_scores(cluster: Any, tiny_spec: Make, tiny_source: Make, tiny_task: TaskData) -> None:
    spec, executor = spec_of(tiny_spec, "vllm", dtype="float32"), make_executor("vllm", replicated=True)
    try:
        executor.load(spec, tiny_source("opt"), tiny_task)
        start, found = executor.snapshot(), []
        for limit in (1, 2):
            executor.restore(start)
            executor.pool.limit = limit
            losses = [executor.step(executor.workload, step, tiny_task.train).tolist() for step in range(5)]
            found.append((losses, executor.checksum()))
            assert len(executor.pool.timings[-1].answers) == limit
        assert found[0] == found[1] and executor.details()["folds"] >= 1
    finally:
        executor.close()
