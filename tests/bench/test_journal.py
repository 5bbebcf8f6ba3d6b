"""The journal: what is torn at its end goes, what is damaged elsewhere is named, two processes never write one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_result import RESULT

from bench.config import RunOptions
from bench.errors import UsageError
from bench.journal.file import JournalWriter, find_journals, header_entry, read_journal
from bench.result import find_results, load_result

STEP = {"step_s": 0.1, "losses": [0.7, 0.6], "projected_gradients": [50.0], "warmup": False}
STEP |= {"seed": 0, "epoch": [0, 0], "learning_rate": 1e-6}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Three steps, a checksum and an evaluation."""
    path = tmp_path / "20260101T000000Z_lozo_fake_none_ab12.journal.jsonl"
    writer = JournalWriter(path)
    writer.write(header_entry(RESULT, RunOptions(sessions=2)))
    for step in range(3):
        writer.event(0, {"event": "step", "step": step, **STEP})
    writer.event(0, {"event": "checksum", "step": 3, "value": "00ff"})
    writer.event(0, {"event": "warning", "text": "é"})
    writer.close()
    return path


def test_round_trip(journal):
    found = read_journal(journal)
    assert found.header.result.id == "ab12" and found.header.options.sessions == 2
    assert [entry.losses for entry in found.sessions[0].steps] == [[0.7, 0.6]] * 3
    assert found.sessions[0].checksums[0].value == "00ff" and not found.done(0)
    assert found.length == journal.stat().st_size and found.lines == 6


def test_float32_losses_survive_exactly(tmp_path):
    import numpy as np

    losses = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    writer = JournalWriter(tmp_path / "x.journal.jsonl")
    writer.write(header_entry(RESULT, RunOptions()))
    writer.event(0, {"event": "step", "step": 0, **STEP, "losses": losses.tolist()})
    writer.close()
    found = np.array(read_journal(writer.path).sessions[0].steps[0].losses, dtype=np.float32)
    assert found.tobytes() == losses.tobytes()


def test_cut_anywhere_it_reads_as_its_whole_lines(journal):
    content = journal.read_bytes()
    header = content.index(b"\n") + 1
    for length in [*range(0, header, 50), *range(header - 1, len(content))]:
        journal.write_bytes(content[:length])
        if length < header:
            with pytest.raises(UsageError, match="no whole line"):
                read_journal(journal)
        else:
            assert read_journal(journal).length == content[:length].rindex(b"\n") + 1


def test_going_on_after_a_torn_line(journal):
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"sum":"0123')
    writer = JournalWriter(journal, new=False)
    writer.read()
    writer.event(0, {"event": "step", "step": 3, **STEP})
    writer.close()
    assert journal.read_bytes().startswith(whole) and len(read_journal(journal).sessions[0].steps) == 4


def test_a_changed_byte_before_the_last_line_is_named(journal):
    content = bytearray(journal.read_bytes())
    last = content.rstrip(b"\n").rindex(b"\n") + 1
    for position in range(0, last, 7):
        damaged = bytearray(content)
        damaged[position] ^= 1
        journal.write_bytes(damaged)
        line = content[:position].count(b"\n") + 1
        with pytest.raises(UsageError, match=rf"{journal.name}: line {line} is corrupt"):
            read_journal(journal)


@pytest.mark.parametrize("change", ["drop", "double", "swap"])
def test_lines_that_are_missing_or_moved_are_noticed(journal, change):
    lines = journal.read_bytes().splitlines(keepends=True)
    lines = {
        "drop": lines[:2] + lines[3:],
        "double": [*lines[:3], *lines[2:]],
        "swap": [*lines[:2], lines[3], lines[2], *lines[4:]],
    }[change]
    journal.write_bytes(b"".join(lines))
    with pytest.raises(UsageError, match="is corrupt"):
        read_journal(journal)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "step", "step": 4, **STEP}, "step 4 follows step 2"),
        ({"event": "step", "step": 3, **STEP, "losses": ["0.7"]}, "losses.0"),
        ({"event": "step", "step": 3}, "step_s"),
        ({"event": "checksum", "step": 9, "value": ""}, "after 3 steps"),
        ({"event": "snapshot", "step": 3, "file": "../x", "sha256": "", "checksum": "", "kind": "best"}, "plain name"),
        ({"event": "pickle"}, "not known"),
    ],
)
def test_whole_lines_with_wrong_contents_are_refused(journal, event, words):
    writer = JournalWriter(journal, new=False)
    writer.read()
    writer.event(0, event)
    writer.event(0, {"event": "done"})
    writer.close()
    with pytest.raises(UsageError, match="line 7 is not of this suite") as error:
        read_journal(journal)
    assert words in str(error.value)


def test_one_writer_at_a_time(journal):
    first = JournalWriter(journal, new=False)
    with pytest.raises(UsageError, match="still going on in another process"):
        JournalWriter(journal, new=False)
    first.close()
    JournalWriter(journal, new=False).close()


def test_a_new_journal_never_takes_the_place_of_another(journal):
    before = journal.read_bytes()
    with pytest.raises(OSError, match="File exists"):
        JournalWriter(journal)
    assert journal.read_bytes() == before


def test_a_run_is_found_by_id_journal_or_result(journal, tmp_path):
    result = journal.with_name("20260101T000000Z_lozo_fake_none_ab12.json")
    for name in ("ab12", str(journal), str(result)):
        assert find_journals(name, tmp_path) == [journal]
    for name in ("cd34", "b12", "*", "../ab12", ""):
        with pytest.raises(UsageError, match="no run with a journal"):
            find_journals(name, tmp_path)


def test_a_full_disk_is_one_line_and_keeps_what_was_written(fake, tmp_path, monkeypatch):
    write, left = os.write, [9]

    def full(descriptor: int, data: bytes) -> int:
        if data.startswith(b'{"sum"'):
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    outcome = fake("--sessions", "1")
    assert outcome.code == 1 and outcome.err.count("\n") == 1
    assert "No space left on device" in outcome.err and "lines written before are intact" in outcome.err
    monkeypatch.undo()
    (path,) = tmp_path.rglob("*.journal.jsonl")
    assert len(read_journal(path).sessions[0].steps) > 0


def test_bad_input_leaves_no_journal(fake, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("[")
    assert fake("--data", str(bad)).code == 2
    assert not list(tmp_path.rglob("*.journal.jsonl"))


def test_two_runs_in_one_folder_keep_apart(script, tmp_path):
    commands = [run_command(tmp_path, script(losses=[float(i + 1)])) for i in range(2)]
    for process in [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in commands]:
        process.communicate(timeout=60)
        assert process.returncode == 0
    results = [load_result(path) for path in find_results([tmp_path])]
    assert sorted(round(result.sessions[0].losses[0][0]) for result in results) == [1, 2]
    assert len(list(tmp_path.rglob("*.journal.jsonl"))) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_hint_that_works(bench, script, tmp_path, number):
    data = Path(script(at={"5": "hang"}))
    process = subprocess.Popen(
        run_command(tmp_path, str(data), sessions=2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not any(path.read_bytes().count(b'"event":"step"') == 5 for path in tmp_path.rglob("*.journal.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and f"interrupted by {number.name} at step 4" in err
    hint = next(line for line in err.splitlines() if line.startswith("go on with: python -m bench ")).split()
    data.write_text("{}")
    outcome = bench(*hint[6:])
    (path,) = find_results([tmp_path])
    result = load_result(path)
    assert outcome.code == 0 and result.status == "passed" and [len(s.losses) for s in result.sessions] == [8, 8]
    assert result.sessions[0].details["resumed_at"] == [5] and "resumed" in result.sessions[0].warnings[-1]
    assert bench(*hint[6:]).json["sessions"] == 2  # all done: the result is there, nothing runs


def test_a_signal_names_every_run_that_lacks_sessions(script, tmp_path):
    """One of the pair is cut short, the other has not begun: both are named, and nothing is called done."""
    command = [*run_command(tmp_path, script(at={"5": "hang"})), "--executor", "fake"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not any(path.read_bytes().count(b'"event":"step"') == 5 for path in tmp_path.rglob("*.journal.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and err.count("go on with: ") == 2


def test_resume_takes_the_options_of_the_run(bench, tmp_path):
    outcome = bench("run", "--resume", "ab12", "--steps", "3", "--executor", "eager")
    assert outcome.code == 2 and "leave out --executor, --steps" in outcome.err


def run_command(folder: Path, data: str, sessions: int = 1) -> list[str]:
    fixed = ["--executor", "fake", "--model", "none", "--device", "cpu", "--no-profile", "--warmup", "2", "--steps", "6"]
    own = ["--sessions", str(sessions), "--data", data, "--results", str(folder)]
    return [sys.executable, "-m", "bench", "run", *fixed, *own]
