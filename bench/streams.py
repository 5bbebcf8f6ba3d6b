"""Standard streams that last: a run of hours must not end because nobody reads what it says.

A stream that is closed becomes the null device, before an opened file could take its number and be written into. What a reader
that has gone away no longer takes is dropped; only a full device is worth an error, for the last line of stdout is lost.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Lasting(io.FileIO):
    """An output that swallows what cannot be written. full: why, where the device had no room."""

    full: str | None = None

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # somebody made the stream non-blocking
                select.select([], [self], [])
            return written
        except OSError as error:
            if error.errno in FULL:
                self.full = error.strerror
            return len(data)


def mend() -> None:
    """Make the three standard streams of this process usable, whatever it was started with."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open
    sys.stdout = _lasting(1, sys.stdout)
    sys.stderr = _lasting(2, sys.stderr)


def lost_output() -> str | None:
    """Why what was written to stdout is not all there, or None."""
    sys.stdout.flush()
    raw = getattr(sys.stdout.buffer, "raw", None)
    return raw.full if isinstance(raw, Lasting) else None


def _lasting(number: int, before: Any) -> io.TextIOWrapper:
    encoding = before.encoding if before else "utf-8"
    raw = io.BufferedWriter(Lasting(number, "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=True)
