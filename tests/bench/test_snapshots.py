"""Snapshots: what was saved is what is read, and nothing else is taken for one."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api import Snapshot
from bench.errors import UsageError
from bench.executors.fake.executor import FakeExecutor
from bench.journal.entries import History, SnapshotEntry, StepEntry
from bench.journal.file import read_journal
from bench.journal.keeper import Keeper
from bench.journal.snapshots import KEPT, Snapshots
from workloads.parameters.checksum import checksum

SAVED = Snapshot({"w": torch.arange(6, dtype=torch.float16).view(2, 3)}, {"step": 3, "pending": [{"kind": "lowrank"}]})


@pytest.fixture
def files(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "20260101T000000Z_x_ab12.journal.jsonl", 0)


def entry_of(path: Path) -> SnapshotEntry:
    return SnapshotEntry(0, path.name, hashlib.sha256(path.read_bytes()).hexdigest(), "", "best")


def test_round_trip(files):
    entry = files.write(SAVED, 3, "00ff", "checkpoint")
    found = files.read(entry)
    assert torch.equal(found.tensors["w"], SAVED.tensors["w"]) and found.facts == SAVED.facts
    assert (entry.step, entry.checksum, entry.kind) == (3, "00ff", "checkpoint")


def test_a_changed_bit_is_noticed(files):
    entry = files.write(SAVED, 3, "", "best")
    path = files.folder / entry.file
    for position in range(0, path.stat().st_size, 5):
        damaged = bytearray(path.read_bytes())
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=rf"{entry.file}: damaged"):
            files.read(entry)
        damaged[position] ^= 4
        path.write_bytes(damaged)
    assert files.read(entry).facts == SAVED.facts


def test_a_full_disk_is_one_line_and_keeps_what_is_there(files, monkeypatch):
    first = files.write(SAVED, 3, "", "checkpoint")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"step4.*No space left on device.*earlier snapshots are intact"):
        files.write(SAVED, 4, "", "checkpoint")
    assert [path.name for path in files.folder.iterdir()] == [first.file]


def test_pickles_are_refused_unread(files):
    class Bomb:
        def __reduce__(self):
            return (os._exit, (3,))

    files.folder.mkdir()
    path = files.folder / "session0_step0_best.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UsageError, match="not a snapshot"):
        files.read(entry_of(path))
    with pytest.raises(UsageError, match="cannot be read"):
        files.read(replace(entry_of(path), file="none.safetensors"))


def test_only_files_of_the_session_are_pruned(files):
    kept = files.write(SAVED, 8, "", "checkpoint")
    files.write(SAVED, 4, "", "checkpoint")
    other = Snapshots(files.folder.with_name("20260101T000000Z_x_ab12.journal.jsonl"), 1).write(SAVED, 4, "", "best")
    files.prune({kept.file})
    assert sorted(path.name for path in files.folder.iterdir()) == sorted([kept.file, other.file])


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    """Of a session of 20 steps whose state is empty."""
    steps = [StepEntry(i, 0.1, [0.7, 0.6], [50.0], False, 0, [0, 0], 1e-6) for i in range(20)]
    workload: Any = None  # the fake executor replays by noting it
    return Keeper(FakeExecutor(), workload, History(steps=steps), [].append, tmp_path / "x_ab12.journal.jsonl", 0)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """Steps of the snapshots that lie in the folder while each one is written."""
    found, write = [], Snapshots.write

    def watched(self: Snapshots, *arguments: Any) -> SnapshotEntry:
        found.append(steps_of(self.folder))
        return write(self, *arguments)

    monkeypatch.setattr(Snapshots, "write", watched)
    return found


def steps_of(folder: Path) -> set[int]:
    return {int(path.name.split("step")[1].split("_")[0]) for path in folder.glob("*")}


def test_room_is_made_before_a_snapshot_is_written(keeper, beside, tmp_path):
    for step, kind in [(4, "checkpoint"), (6, "best"), (8, "checkpoint"), (12, "checkpoint"), (16, "checkpoint"), (18, "best")]:
        keeper.snapshot(step, kind)
    assert beside == [set(), {4}, {4, 6}, {6, 8}, {6, 12}, {6, 16}]
    assert steps_of(tmp_path / "x_ab12.snapshots") == {16, 18} and KEPT == 2


def test_a_damaged_snapshot_is_not_kept_in_place_of_a_good_one(keeper, beside, tmp_path):
    for step in (8, 16):
        keeper.snapshot(step, "checkpoint")
    newest = tmp_path / "x_ab12.snapshots" / keeper.history.snapshots[-1].file
    newest.write_bytes(newest.read_bytes()[:-1])
    keeper.rebuild()
    assert keeper.executor.calls.count("replay") == 20 - 8  # from the good one on
    keeper.snapshot(16, "checkpoint")
    assert beside == [set(), {8}, {8}]
    keeper.rebuild()
    assert keeper.executor.calls.count("replay") == 20 - 8 + 20 - 16


def test_snapshots_end_with_their_session_but_for_the_first_that_export_reads(fake, tmp_path):
    outcome = fake("--sessions", "2", "--checkpoint-every", "2")
    assert outcome.code == 0
    found = sorted(path.name for path in tmp_path.rglob("*.safetensors"))
    assert found == ["session0_step2_checkpoint.safetensors", "session0_step4_checkpoint.safetensors"]
    (journal,) = tmp_path.rglob("*.journal.jsonl")
    assert [entry.step for entry in read_journal(journal).sessions[1].snapshots] == [2, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_a_checksum_sees_every_element_type_shape_and_name(dtype):
    tensor = torch.arange(1, 41).to(dtype).view(4, 10)
    start = checksum({"a": tensor, "b": tensor})
    assert start == checksum({"b": tensor.clone(), "a": tensor.t().contiguous().t()})
    for i in range(40):
        changed = tensor.clone()
        changed.view(-1)[i] += 1
        assert checksum({"a": changed, "b": tensor}) != start
    swapped = tensor.clone()
    swapped[0, 0], swapped[0, 1] = tensor[0, 1], tensor[0, 0]
    assert checksum({"a": swapped, "b": tensor}) != start
    assert checksum({"a": tensor.view(10, 4), "b": tensor}) != start
    assert checksum({"a": tensor, "c": tensor}) != start
