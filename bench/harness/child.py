"""The child's end of a session: it reads its job from stdin, reports events, and says what went wrong in one line."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from bench.errors import UsageError
from bench.harness.steps import Diverged
from bench.harness.unmoved import Unmoved
from bench.journal.events import Emit, plain
from bench.result import Status


def describe(error: BaseException) -> str:
    """One line: the kind of error and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def classify(error: BaseException) -> tuple[Status, str]:
    """Status and message of an exception; running out of memory says what was free."""
    if isinstance(error, Diverged):
        return "diverged", str(error)
    if isinstance(error, Unmoved):
        return "incorrect", str(error)
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) + ((torch.OutOfMemoryError,) if torch else ())
    allocator = isinstance(error, RuntimeError) and any(
        text in str(error).lower() for text in ("out of memory", "can't allocate memory", "not enough memory")
    )
    if not (isinstance(error, kinds) or allocator):
        return "failed", describe(error)
    import psutil

    free = f"{psutil.virtual_memory().available / 2**30:.1f} GiB of main memory free"
    if torch and torch.cuda.is_initialized():
        free = f"{torch.cuda.mem_get_info()[0] / 2**30:.1f} GiB free on the GPU, {free}"
    return "out_of_memory", f"{describe(error)} ({free}); a smaller --batch-size or --model needs less"


def serve(descriptor: int, work: Callable[[dict[str, Any], Emit], None]) -> int:
    """The child process: its parent holds the other ends of stdin and of the descriptor. `work` gets the job as plain JSON."""
    out = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)

    def emit(event: dict[str, Any]) -> None:
        out.write(json.dumps(plain(event), separators=(",", ":"), allow_nan=False) + "\n")

    job = json.loads(_read_line(0))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(job, emit)
    except UsageError as error:
        emit({"event": "error", "status": "failed", "text": str(error), "usage": True})
        return 2
    except Exception as error:  # everything is reported: the parent turns it into the session's status
        traceback.print_exc()
        status, text = classify(error)
        outside = isinstance(error, OSError) or status == "out_of_memory"
        emit({"event": "error", "status": status, "text": text} | ({"outside": True} if outside else {}))
        return 1
    return 0


def _read_line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (chunk := os.read(descriptor, 65536)):
        line += chunk
    return line


def _end_with_parent() -> None:
    """Stdin closes when the parent is gone, however it went: then this whole process group goes too."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)
