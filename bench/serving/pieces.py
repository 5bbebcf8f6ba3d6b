"""A call that is made a piece at a time."""

from __future__ import annotations

from collections.abc import Callable
from threading import Semaphore, Thread


class GivenUp(BaseException):
    """Unwinds a call that nobody wants the rest of."""


class Pieces:
    """The call is made in a thread, which runs only while `go_on` waits for it: to its next `pause`, or its end. So the two
    never run at once. busy: whether a call has begun that is not over."""

    def __init__(self) -> None:
        self._turn, self._back = Semaphore(0), Semaphore(0)
        self._call: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._wanted = True
        self._thread = Thread(target=self._run, name="pieces", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._call is not None

    def begin(self, call: Callable[[], None]) -> None:
        """From the next `go_on` on; a call that is not over is given up."""
        self.give_up()
        self._call = call

    def go_on(self) -> None:
        """One piece. Raises what the call raises."""
        if self._call is not None:
            self._turn.release()
            self._back.acquire()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def give_up(self) -> None:
        self._wanted = False
        self.go_on()
        self._wanted = True

    def pause(self) -> None:
        """Called by the call."""
        self._back.release()
        self._turn.acquire()
        if not self._wanted:
            raise GivenUp

    def _run(self) -> None:
        while True:
            self._turn.acquire()
            try:
                if self._wanted and self._call is not None:
                    self._call()
            except GivenUp:
                pass
            except BaseException as error:  # for whoever waits in `go_on`
                self._error = error
            self._call = None
            self._back.release()
