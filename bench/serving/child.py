"""A server as a child process: started as a user starts it, ended as a user ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.config import RunSpec
from bench.errors import UsageError, option
from bench.serving.settings import ServeOptions
from bench.settings import settings
from bench.shadowing import child_environment

START_S, END_S = 900.0, 60.0
GUARD = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGKILL)"
READY = re.compile(r"control at (\S+)/training\n.*ends it")


class Child:
    """given, options: fields of RunSpec and ServeOptions that were typed; log: of its stderr."""

    def __init__(self, given: Mapping[str, Any], options: Mapping[str, Any], log: Path) -> None:
        words = [*_words(RunSpec, given), *_words(ServeOptions, options)]
        self._log = log
        environment = os.environ | child_environment()
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench", "serve", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                process_group=0,  # of this session: Linux shares cores out by sessions first, and training gives way to all
            )
        self._guard = guard(self._process.pid)
        try:
            self.url = self._ready()
        except BaseException:
            self.end()
            raise

    def _ready(self) -> str:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            said = self._log.read_text(errors="replace")
            if found := READY.search(said):
                return found[1]
            if self._process.poll() is not None:
                error = next((line for line in reversed(said.splitlines()) if line.startswith("error: ")), "")
                if self._process.returncode == 2 and error:
                    raise UsageError(error.removeprefix("error: "))
                raise OSError(f"the server did not start; its output is in {self._log}")
            time.sleep(0.2)
        raise OSError(f"the server was not ready after {START_S:g} s; its output is in {self._log}")

    def end(self) -> None:
        """SIGINT, then SIGKILL to it and everything it started. Safe to call twice."""
        self._guard.kill()
        self._guard.wait()
        for number in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number) if number == signal.SIGKILL else self._process.send_signal(number)
                self._process.wait(timeout=END_S)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break


def guard(group: int) -> subprocess.Popen[bytes]:
    """A process that kills a process group once this process is gone, however it ended: it reads a pipe that nobody writes to."""
    return subprocess.Popen([sys.executable, "-c", GUARD, str(group)], stdin=subprocess.PIPE, start_new_session=True)


def _words(kind: type, given: Mapping[str, Any]) -> list[str]:
    """The command line that says these fields."""
    words: list[str] = []
    for name, value in given.items():
        spelled = settings(kind)[name].spelled or option(name)
        if isinstance(value, bool):
            words.append(spelled if value else spelled.replace("--", "--no-", 1))
        else:
            words += [word for one in (value if isinstance(value, tuple) else (value,)) for word in (spelled, str(one))]
    return words
