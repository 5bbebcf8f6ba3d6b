"""Runs a session as a fresh process in a process group of its own, and sees to it that nothing of it is left behind."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bench.environment import threads
from bench.journal.events import Event, SessionLog
from bench.shadowing import child_environment


class Job(Protocol):
    """What a child is given: a dataclass, sent as JSON. module: what `python -m` runs; index: of the session it reports on."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    module: ClassVar[str]

    @property
    def index(self) -> int: ...


POLL_S, GRACE_S = 0.2, 3.0
ENDED_BY_OTHERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU)
"""Signals that say nothing against the session: it may go on where it was."""


@dataclass
class Stop:
    """Set by SIGINT, SIGTERM or SIGHUP; a running session then ends and keeps what it has seen."""

    signal: str | None = None


@contextmanager
def stoppable() -> Iterator[Stop]:
    """While this is open, SIGINT, SIGTERM and SIGHUP set the flag instead of ending the process; under nohup SIGHUP does not."""
    stop = Stop()

    def note(number: int, _frame: object) -> None:
        stop.signal = signal.Signals(number).name

    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, *hangup)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_process(
    job: Job,
    *,
    timeout_s: float,
    log_path: Path,
    stop: Stop,
    on_event: Callable[[Event], None] = lambda event: None,
    log: SessionLog | None = None,
) -> SessionLog:
    """Run one session to its end, its time-out or a signal. Its output goes to `log_path`; its events come back added up,
    to those of `log` where an earlier process began it."""
    log = SessionLog(job.index) if log is None else log
    read_end, write_end = os.pipe()
    with open(log_path, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", job.module, str(write_end)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(write_end,),
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads())} | child_environment(),
        )
    os.close(write_end)
    try:
        _send(process, json.dumps(asdict(job)).encode() + b"\n")
        ended = _follow(process, read_end, time.monotonic() + timeout_s, stop, log, on_event)
    finally:
        os.close(read_end)
        _end_group(process)
    if log.finished or log.failed:
        return log
    if stop.signal:
        log.cut_short("failed", f"interrupted by {stop.signal} at {log.where}")
    elif not ended:
        log.cut_short("timeout", f"still at {log.where} after {timeout_s:g} s; raise --timeout, or lower --steps or --batch-size")
    else:
        log.fail("failed", f"the process ended at {log.where} with {exit_words(process.returncode)}; its output is in {log_path}")
        log.resumable = -process.returncode in ENDED_BY_OTHERS
    return log


def _send(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it died at once; its exit says more
        process.stdin.write(line)
        process.stdin.flush()


def _follow(
    process: subprocess.Popen[bytes],
    read_end: int,
    deadline: float,
    stop: Stop,
    log: SessionLog,
    on_event: Callable[[Event], None],
) -> bool:
    """Take in events until the process ends (True), or its time is up or a signal came (False)."""
    rest, connected = b"", True
    with selectors.DefaultSelector() as selector:
        selector.register(read_end, selectors.EVENT_READ)
        while True:
            running = process.poll() is None
            if running and (stop.signal or time.monotonic() > deadline):
                return False
            if connected and selector.select(POLL_S if running else 0):
                chunk = os.read(read_end, 1 << 16)
                *lines, rest = (rest + chunk).split(b"\n")
                for event in map(json.loads, lines):
                    log.add(event)
                    on_event(event)
                    if log.finished or log.failed:
                        deadline = min(deadline, time.monotonic() + GRACE_S)
                connected = bool(chunk)
            elif not running:
                return True
            elif not connected:
                time.sleep(POLL_S / 10)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL, to the session and everything it started; a session that ended may have left children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.wait()


def exit_words(code: int) -> str:
    """How a process ended, from its return code."""
    if code >= 0:
        return f"exit code {code}"
    hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"signal {signal.Signals(-code).name}{hint}"
