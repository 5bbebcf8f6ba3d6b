"""Writing: whole or not at all, and never over somebody else's file."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace

import pytest
from test_result import RESULT

from bench.errors import UsageError
from bench.files import write_atomically
from bench.journal.store import Store, stem
from bench.result import load_result


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    store = Store(tmp_path)
    path = store.write(RESULT)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*files written before are intact") as error:
        store.write(replace(RESULT, status="failed"))
    assert str(path) in str(error.value)
    assert load_result(path) == RESULT
    assert list(store.local.iterdir()) == [path]


def test_a_changed_digit_is_noticed(tmp_path):
    path = Store(tmp_path).write(RESULT)
    text = path.read_text()
    assert load_result(path) == RESULT and "1.5" in text
    path.write_text(text.replace("1.5", "1.4", 1))
    with pytest.raises(UsageError, match=rf"{path.name}: damaged"):
        load_result(path)


def test_a_full_disk_is_one_line_and_exit_code_1(fake, monkeypatch, tmp_path):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bench.journal.store.write_atomically", full)
    outcome = fake("--sessions", "1")
    assert outcome.code == 1 and outcome.err.count("\n") == 1 and "No space left on device" in outcome.err


def test_readers_see_the_old_content_or_the_new(tmp_path):
    path = tmp_path / "file.json"
    for size in (10, 100_000, 10):
        write_atomically(path, json.dumps("x" * size))
        assert len(json.loads(path.read_text())) == size
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("model", ["facebook/opt-125m", "/models/opt-125m", "../opt-125m", "opt-125m/"])
def test_a_file_name_never_leaves_its_folder(model):
    from bench.config import RunSpec

    name = stem("20260101T000000Z", RunSpec.from_json(RESULT.spec | {"model": model}), "ab12")
    assert name == "20260101T000000Z_lozo_fake_opt-125m_ab12"
