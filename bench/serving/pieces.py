"""A call that is made a piece at a time, when nobody else has use for the processor."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Semaphore, Thread, get_native_id

NICE = 4
"""A server has more processes than cores: a piece gives way to them, but not so far that users wait long for its end."""


class GivenUp(BaseException):
    """Unwinds a call that nobody wants the rest of."""


class Pieces:
    """The call is made in a thread, which runs only while `go_on` waits for it: to a `pause`, or its end. So the two never run at
    once.

    called  whether somebody waits for the piece that runs to end
    busy    whether a call has begun that is not over
    pieces  of the last call that was made to its end
    """

    def __init__(self, called: Callable[[], bool]) -> None:
        self._called = called
        self._mine, self._theirs = Semaphore(0), Semaphore(0)
        self._call: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._wanted, self._left = True, 0
        self.pieces, self._counted = 1, 1
        self._thread = Thread(target=self._run, name="pieces", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._call is not None

    def begin(self, call: Callable[[], None]) -> None:
        """From the next `go_on` on; a call that is not over is given up."""
        self.give_up()
        self._call, self._counted = call, 1

    def go_on(self, pieces: int) -> None:
        """So many of them, or what is left. Raises what the call raises."""
        if self._call is not None:
            self._left = pieces
            self._mine.release()
            self._theirs.acquire()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def give_up(self) -> None:
        self._wanted = False
        self.go_on(1)
        self._wanted = True

    def over(self) -> bool:
        """Told by the call that a piece has ended: whether to pause."""
        self._left -= 1
        self._counted += 1
        return self._left <= 0 or self._called()

    def pause(self) -> None:
        """By the call, until it is to go on."""
        self._theirs.release()
        self._mine.acquire()
        if not self._wanted:
            raise GivenUp

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)
        while True:
            self._mine.acquire()
            try:
                if self._wanted and self._call is not None:
                    self._call()
                    self.pieces = self._counted
            except GivenUp:
                pass
            except BaseException as error:  # for whoever waits in `go_on`
                self._error = error
            self._call = None
            self._theirs.release()
