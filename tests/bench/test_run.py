"""`run` from end to end on the fake executor: real processes, scripted losses and clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from bench.result import find_results, load_result


def only_result(tmp_path: Path):
    (path,) = find_results([tmp_path])
    return load_result(path)


def test_sessions_steps_and_losses_are_the_scripted_ones(fake, script, tmp_path):
    outcome = fake("--data", script(step_s=[[0.1, 0.2], [0.4, 0.8]], losses=[1.0, 0.5]), "--sessions", "2")
    result = only_result(tmp_path)
    assert outcome.code == 0 and result.status == "passed"
    assert [s.warmup_s for s in result.sessions] == [[0.1, 0.2], [0.4, 0.8]]
    assert [s.step_s for s in result.sessions] == [[0.1, 0.2, 0.1, 0.2], [0.4, 0.8, 0.4, 0.8]]
    assert result.sessions[0].losses[0] == pytest.approx([1.01, 0.99])
    assert result.sessions[0].losses[5] == pytest.approx([0.51, 0.49])
    assert result.sessions[0].projected_gradients[3] == pytest.approx([10.0], rel=1e-4)
    assert result.sessions[0].checks[0].passed
    assert result.data["digest"] == "fake"


def test_calls_come_in_order(fake, tmp_path):
    fake("--sessions", "1", "--steps", "1", "--warmup", "1")
    assert only_result(tmp_path).sessions[0].details["calls"] == ["load", "score", "score", "apply", "score", "apply"]


def test_last_line_is_one_json_object_and_people_read_stderr(fake, script):
    outcome = fake("--data", script(step_s=[0.25], accuracy=[0.5, 0.6, 0.7, 0.75]), "--sessions", "1", "--eval-every", "2")
    assert outcome.out.count("\n") == 1
    assert outcome.json["step_s_median"] == 0.25
    assert outcome.json["loss_first"] == pytest.approx(0.7)
    assert (outcome.json["accuracy_before"], outcome.json["accuracy_after"]) == (0.5, 0.75)
    assert {"status", "path", "workload", "executor", "model", "loss_last"} <= outcome.json.keys()
    assert Path(outcome.json["path"]).exists()
    assert "250.00 ms/step" in outcome.err


def test_evaluations_come_before_after_and_between(fake, script, tmp_path):
    fake("--data", script(accuracy=[0.5, 0.625, 0.625, 0.75, 0.875]), "--sessions", "1", "--eval-every", "2")
    found = [(e.step, e.split, e.accuracy) for e in only_result(tmp_path).sessions[0].evaluations]
    assert found == [(0, "eval", 0.5), (4, "dev", 0.625), (6, "dev", 0.625), (6, "eval", 0.75), (4, "best", 0.875)]


def test_executors_take_turns_and_share_a_pair_id(fake, tmp_path):
    outcome = fake("--executor", "fake", "--sessions", "3")
    results = [load_result(path) for path in find_results([tmp_path])]
    assert len({result.id for result in results}) == 2
    assert len({result.pair_id for result in results}) == 1 and results[0].pair_id
    assert [run["sessions"] for run in outcome.json["runs"]] == [3, 3]
    first, second = (run["path"] for run in outcome.json["runs"])
    turns = [line.split()[3] for line in outcome.err.splitlines() if line.startswith("lozo fake")]
    assert turns == ["1/3:", "1/3:", "2/3:", "2/3:", "3/3:", "3/3:"]
    assert first != second


@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("raise", "failed", "scripted error"),
        ("crash", "failed", "SIGSEGV"),
        ("nan", "diverged", "step 3: loss of probe 1 is nan"),
        ("out_of_memory", "out_of_memory", "1 TiB asked"),
        ("hang", "timeout", "step 2"),
    ],
)
def test_a_session_that_goes_wrong_keeps_what_it_had_seen(fake, script, tmp_path, what, status, words):
    outcome = fake("--data", script(at={"3": what}), "--timeout", "2")
    result = only_result(tmp_path)
    assert outcome.code == 1
    assert outcome.json["status"] == result.status == result.sessions[0].status == status
    assert words in result.sessions[0].error and words in outcome.err
    assert len(result.sessions) == 1 and len(result.sessions[0].losses) == 3
    assert "Traceback" not in outcome.err
    assert ("go on with" in outcome.err) == (what in ("out_of_memory", "hang"))  # the others would fail at the same step again


def test_wrong_losses_are_not_timed(fake, script, tmp_path):
    outcome = fake("--data", script(error=1e-3))
    session = only_result(tmp_path).sessions[0]
    assert outcome.code == 1 and session.status == "incorrect"
    assert session.step_s == [] and not session.checks[0].passed
    assert session.checks[0].value == pytest.approx(1e-3, rel=1e-3)


def test_a_time_out_ends_grandchildren_too(fake, script, tmp_path, monkeypatch):
    monkeypatch.setenv("ORPHANS_OF", str(tmp_path))
    outcome = fake("--data", script(at={"2": "orphan"}), "--timeout", "2")
    assert outcome.json["status"] == "timeout"
    until(lambda: not started_with("ORPHANS_OF", str(tmp_path)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_cleanly_and_keeps_the_result(script, tmp_path, number):
    process = start(tmp_path, script(at={"3": "orphan"}))
    child = wait_for_child(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1 and "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["status"] == "failed"
    assert f"interrupted by {number.name}" in only_result(tmp_path).sessions[0].error
    until(lambda: not alive(child))


def test_a_session_that_others_kill_may_go_on(script, tmp_path):
    """As the kernel does when memory runs out; what a session does to itself it would do again."""
    process = start(tmp_path, script(at={"3": "orphan"}))
    wait_for_child(process)
    psutil.Process(process.pid).children()[0].kill()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and "SIGKILL" in err and "go on with" in err


def test_nohup_is_obeyed(tmp_path):
    process = start(tmp_path, None, "nohup")
    until(lambda: find_results([tmp_path]))
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["sessions"] == 2


def test_a_session_ends_with_its_killed_parent(script, tmp_path):
    process = start(tmp_path, script(at={"3": "orphan"}))
    child = wait_for_child(process)
    process.kill()
    process.communicate(timeout=20)
    until(lambda: not alive(child))


def start(tmp_path: Path, data: str | None, *through: str) -> subprocess.Popen[str]:
    arguments = ["--executor", "fake", "--model", "none", "--device", "cpu", "--no-profile", "--sessions", "2"]
    arguments += ["--results", str(tmp_path)] + (["--data", data] if data else [])
    command = [*through, sys.executable, "-m", "bench", "run", *arguments]

    def as_from_a_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may be under nohup

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=dict(os.environ), preexec_fn=as_from_a_terminal, **pipes)


def wait_for_child(process: subprocess.Popen[str]) -> int:
    """The pid of the process that the hanging session started: then the session is in its steps."""
    until(lambda: len(psutil.Process(process.pid).children(recursive=True)) == 2)
    return psutil.Process(process.pid).children(recursive=True)[1].pid


def until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Running; a zombie only waits for init to note that it ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def started_with(name: str, value: str) -> list[int]:
    """Running processes with that variable in the environment they were started in."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(name) == value and alive(process.pid):
                found.append(process.pid)
    return found
