"""Training in a process beside the engine's, which it is a copy of (`fork`): the same weights without copying them, and the same
adapter slots, which both see.

It runs where a core would be idle (`SCHED_IDLE`): whatever else wants the core has it at once. It keeps to the last core, as the
server's own process does, and the engine to the others: where all cores seem busy Linux looks for no idle one, and what wakes up
would wait behind the engine. In rounds that the admission policy leaves nothing for, it stands still wherever it is (`SIGSTOP`).
What goes wrong in it ends training and no answer of a user.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import torch

from bench.serving.messages import packed, read

NAME = "training"
"""Of the process, as `ps -o comm` shows it."""
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
Count = Callable[[int], None]


class Work(Protocol):
    """What the process does when nobody calls; a call is a method of it and what that takes."""

    @property
    def waits(self) -> bool: ...

    def advance(self) -> None:
        """One piece."""


class Process:
    """The engine's view of it. runs: or stands still; most: probe tokens of rounds that it may have left over."""

    def __init__(self, pid: int, scored: Any, most: int) -> None:
        self.pid, self.runs = pid, True
        self._scored, self._most = scored, most
        self._known, self._credit, self._free = 0, 0, True

    def seconds(self) -> float:
        """That it has had a core."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def allow(self, tokens: int) -> None:
        """The round that begins leaves so many probe tokens to it: it runs while it has scored no more than rounds allowed."""
        known = int(self._scored[0])
        spent = 0 if self._free else known - self._known
        self._credit, self._known, self._free = min(self._credit - spent + tokens, self._most), known, False
        self._let(tokens > 0 and self._credit > 0)

    def free(self) -> None:
        """Until the next round nobody has a claim: it runs, and that is not counted."""
        self._free = True
        self._let(True)

    def _let(self, runs: bool) -> None:
        if runs != self.runs:
            with suppress(ProcessLookupError):  # it has ended, which whoever calls it is told
                os.kill(self.pid, signal.SIGCONT if runs else signal.SIGSTOP)
            self.runs = runs


def start(make: Callable[[Count], Work | None], path: str, most: int) -> Process | None:
    """Make the work in a process of its own, which listens at `path` for one caller and ends with it, or with the engine; None
    where it says that there is none. make: takes what is to be told of every part that was scored, in tokens. Where it works this
    process leaves it a core."""
    scored = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), dtype=np.int64)
    mine, theirs = socket.socketpair()
    with mine, theirs, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        engine, pid = os.getpid(), os.fork()
        if not pid:
            _run(make, listener, theirs, scored, engine)
        theirs.close()
        said = json.loads(mine.makefile().read() or '{"error": "the process that trains has ended"}')
    if said.get("works"):
        keep_to(shared_out()[0])
        return Process(pid, scored, most)
    os.waitpid(pid, 0)
    if said["error"]:
        raise OSError(said["error"])
    return None


def _run(
    make: Callable[[Count], Work | None], listener: socket.socket, starter: socket.socket, scored: Any, engine: int
) -> NoReturn:
    """In the new process: it never comes back to what its copy of the engine was doing."""
    status = 1
    try:
        _set_apart(engine)

        def count(tokens: int) -> None:
            scored[0] += tokens

        try:
            work, error = make(count), ""
        except Exception as failed:  # whatever it is, the engine is told
            work, error = None, f"{type(failed).__name__}: {failed}"
        starter.sendall(json.dumps({"works": work is not None, "error": error}).encode())
        starter.close()
        if work is not None:
            _serve(work, listener.accept()[0])
        status = 0
    except BaseException:  # nothing may unwind into the engine's copy
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def shared_out() -> tuple[set[int], set[int]]:
    """The cores that this process may use: the engine's, and the last one, which training and the server's own process have. A
    single core is both."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[:-1] or cores), {cores[-1]}


def keep_to(cores: set[int]) -> None:
    """All threads of this process, and those that they begin."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


def _set_apart(engine: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the engine's to obey
        signal.signal(number, signal.SIG_IGN)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_NAME, NAME.encode())
    if os.getppid() != engine:
        raise ChildProcessError("the engine has ended")
    keep_to(shared_out()[1])
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except PermissionError:  # some containers have no other policies
        os.nice(19)
    torch.set_num_threads(1)  # a pool of threads does not outlive a fork


def _serve(work: Work, caller: socket.socket) -> None:
    while True:
        if work.waits and not select.select([caller], [], [], 0)[0]:
            work.advance()
            continue
        message = read(caller)
        if message is None:
            return
        caller.sendall(packed(_answer(work, *message)))


def _answer(work: Work, name: str, args: list[Any]) -> dict[str, Any]:
    try:
        return {"value": getattr(work, name)(*args)}
    except Exception as error:  # whatever a call runs into, its caller is told
        return {"error": f"{type(error).__name__}: {error}"}
