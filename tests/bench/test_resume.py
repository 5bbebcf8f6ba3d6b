"""Runs killed with SIGKILL and resumed follow, bit for bit, the trajectory of a run that was not: on every real executor.

Ten kills, at exact moments of the real code (see killpoints); `make soak` kills a hundred times at random ones.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from killing import STEPS, WARMUP, Killable, trajectory

from bench.config import RunSpec
from bench.data import ModelSource, TaskData
from bench.journal.file import SUFFIX
from bench.registry import make_executor, make_workload

KILLED = -signal.SIGKILL


CHAINS = {
    "vllm": ["result:1"],
    "official": ["rewrite:300", "snapshot:1", "saved:1", "journal:9"],
    "eager": ["fold:30", "saved:1", "journal:9", "snapshot:2", "result:1"],
    "eager fp8": ["fold:30", "snapshot:2"],
    "vllm on two ranks": ["result:1"],
}
CHANGES = {"eager fp8": {"quantization": "fp8"}, "vllm on two ranks": {"tensor_parallel": 2}}


def chain(run: Killable, kills: list[str]) -> None:
    """Begin, and go on after each kill."""
    for kill in kills:
        assert (run.resume if run.begun else run.begin)(kill) == KILLED, kill


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Killable]]:
    """The run of an executor after its kills. Most of the time goes into starting processes, so two chains run at once."""
    folders = {name: tmp_path_factory.mktemp(name.replace(" ", "-")) for name in CHAINS}
    runs = {name: Killable.make(folders[name], name.split()[0], **CHANGES.get(name, {})) for name in CHAINS}
    with ThreadPoolExecutor(2) as pool:
        chains = {executor: pool.submit(chain, runs[executor], kills) for executor, kills in CHAINS.items()}

        def after(executor: str) -> Killable:
            chains[executor].result()
            return runs[executor]

        yield after


@pytest.mark.parametrize("executor", ["official", "eager", "eager fp8"])
def test_killed_again_and_again_it_ends_as_if_never(executor, killed):
    """Amid a rewrite or a fold of the weights, in a snapshot and just after one, half-way through a line, before the result."""
    run = killed(executor)
    assert run.resume() == 0
    assert trajectory(run.session) == trajectory(run.here().session)
    assert len(run.session.losses) == WARMUP + STEPS and len(run.session.details["resumed_at"]) >= 2
    assert not list(run.folder.rglob("*.part"))


@pytest.mark.parametrize("executor", ["vllm", "vllm on two ranks"])
def test_vllm_goes_on_from_any_step_as_if_never_killed(executor, killed):
    """One engine runs to the end and is killed before its result is written; the other goes on from a part of its journal."""
    run = killed(executor)
    whole = run.journal.sessions[0]
    lines = run.journal_path.read_bytes().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if b'"event":"step","warmup":false,"step":17' in line)
    run.journal_path.write_bytes(b"".join(lines[: cut + 1]) + lines[cut + 1][:40])
    assert run.resume() == 0
    assert run.session.losses == [step.losses for step in whole.steps] and len(whole.steps) == WARMUP + STEPS
    assert run.session.evaluations == whole.evaluations


def test_damage_is_named_and_the_last_good_state_used(tmp_path):
    run = Killable.make(tmp_path, "eager", eval_every=0).here()
    expected, finished = trajectory(run.session), run.journal_path.read_bytes()
    cut = finished.index(b'"event":"step","warmup":false,"step":26')
    run.journal_path.write_bytes(finished[: finished.rindex(b"\n", 0, cut) + 1])
    *_, before, newest = run.journal.sessions[0].snapshots
    assert (before.step, newest.step) == (16, 24)
    path = run.journal_path.with_name(run.journal_path.name.replace(SUFFIX, ".snapshots")) / newest.file
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert run.resume() == 0
    assert path.with_name(before.file).exists()
    assert any(newest.file in text and "damaged" in text for text in run.session.warnings)
    assert trajectory(run.session) == expected


DENSE = {"lora": "dense", "batching": "sequential"}
CELLS = [
    ("eager", "lozo", {"dtype": "float16", "queries": 2}),
    ("eager", "lozo", {"scope": "full", "lora": "dense", "batching": "sequential"}),
    ("eager", "factorized", {"rank": 4, "queries": 2, "dtype": "bfloat16"}),
    ("eager", "mezo", {**DENSE, "scope": "full"}),
    ("official", "lozo", {"directions": "upstream", "scope": "full", "dtype": "bfloat16"}),
    ("official", "mezo", {"directions": "upstream"}),
    ("eager", "one-sided", {"queries": 3, "lr_schedule": "cosine", "lr_warmup": 2, "weight_decay": 10.0}),
    ("eager", "fzoo", {"rank": 4, "queries": 3, "dtype": "float16"}),
    ("eager", "eggroll", {"rank": 1, "queries": 3}),
    ("eager", "three-points", {"weight_decay": 10.0, "dtype": "bfloat16"}),
    ("eager", "conservative", {"dtype": "bfloat16"}),
    ("official", "conservative", {"dtype": "bfloat16"}),
    ("eager", "lozo-m", {"queries": 2}),
    ("eager", "lozo-m", {"scope": "full", "dtype": "float16", "weight_decay": 10.0}),
    ("eager", "mezo-m", {**DENSE, "momentum_state": "redrawn", "momentum": 0.1}),
    ("eager", "mezo-m", {**DENSE, "dtype": "bfloat16", "queries": 2}),
    ("eager", "zo-adam", {**DENSE, "scope": "full"}),
    ("eager", "mezo", {"scope": "adapter", "queries": 2}),
    ("eager", "zo-adam", {"scope": "adapter", "dtype": "float16", "weight_decay": 10.0}),
    ("official", "one-sided", {"queries": 2, "weight_decay": 10.0}),
    ("official", "lozo", {"queries": 2}),
    ("official", "factorized", {"rank": 4}),
    ("official", "lozo", {"directions": "upstream", "max_tokens": 200, "dtype": "bfloat16"}),
    ("eager", "lozo", {"max_tokens": 100, "queries": 2}),
    ("eager", "lozo", {"quantization": "fp8", "dtype": "float16"}),
    ("eager", "factorized", {"quantization": "fp8", "rank": 4, "weight_decay": 10.0}),
    ("eager", "mezo", {"quantization": "bitsandbytes", "scope": "adapter"}),
]


@pytest.mark.parametrize(("executor", "workload", "changes"), CELLS, ids=[f"{e}-{w}-{i}" for i, (e, w, _) in enumerate(CELLS)])
def test_a_state_replays_and_restores_bit_for_bit(
    executor: str, workload: str, changes: dict, tiny_source: Callable[[str], ModelSource], tiny_task: TaskData
) -> None:
    official = executor == "official"
    fields = dict(model="tiny", weights="random", task="sst2", dtype="float32", device="cpu", directions="shared", interval=3)
    if official:
        fields |= dict(batching="sequential", kv="recompute", lora="dense")
    else:
        fields |= dict(batching="paired", kv="shared", lora="fused")
    fields |= dict(loop="requests", learning_rate=1e-3, batch_size=8, **changes)
    spec = RunSpec(workload, executor, **fields)
    source, method = tiny_source("opt"), make_workload(spec)

    def fresh():
        loaded = make_executor(executor)
        loaded.load(spec, source, tiny_task)
        loaded.score(tiny_task.train, method.plan(0))
        return loaded

    first, second, third, losses, states = fresh(), fresh(), fresh(), [], []
    for step in range(8):
        states.append(first.checksum())
        losses.append(first.step(method, step, tiny_task.train).tolist())
        if step == 4:
            third.restore(first.snapshot())
        if step == 5:
            first.evaluate(tiny_task.eval)  # folds what it must; the trajectory may not change
    assert len(set(states)) == 8
    for step in range(8):
        second.replay(method, step, torch.tensor(losses[step]))
        assert second.seed(step) == first.seed(step)
    assert second.checksum() == first.checksum()
    for step in range(5, 8):
        assert third.step(method, step, tiny_task.train).tolist() == losses[step]
    ours, theirs = first.parameters(), second.parameters()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
