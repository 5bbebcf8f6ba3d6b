"""What is on for some passes and off for all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Switch:
    """on: whether the pass that is being made takes it."""

    on = False

    @contextmanager
    def during(self, on: bool) -> Iterator[None]:
        """For the pass made meanwhile."""
        self.on = on
        try:
            yield
        finally:
            self.on = False
