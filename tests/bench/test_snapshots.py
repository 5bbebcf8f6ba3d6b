"""Snapshots: what was saved is what is read, and nothing else is taken for one."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.api import UsageError
from bench.harness.entries import SnapshotEntry
from bench.harness.snapshots import Snapshots
from workloads.checksum import checksum
from workloads.durable import Snapshot

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
