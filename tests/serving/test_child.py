"""A child server ends with the process that started it, also where that is killed."""

import os
import signal
import subprocess
import sys
import time

STARTS = """
import subprocess, sys, time
from bench.serving.child import guard
sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
guard(sleeper.pid)
print(sleeper.pid, flush=True)
time.sleep(600)
"""


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_parent_leaves_nothing_running() -> None:
    parent = subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert running(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        end = time.monotonic() + 30
        while running(child) and time.monotonic() < end:
            time.sleep(0.05)
        assert not running(child)
    finally:
        if running(child):
            os.kill(child, signal.SIGKILL)
