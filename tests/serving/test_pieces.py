"""A call made a piece at a time: what runs between its pauses, and what becomes of one that nobody wants the rest of."""

from __future__ import annotations

import os
import threading

import pytest

from bench.serving.pieces import NICE, Pieces


class Work:
    """Notes what it does in six pieces."""

    def __init__(self, called: bool = False) -> None:
        self.told, self.called = list[object](), called
        self.pieces = Pieces(lambda: self.called)

    def call(self) -> None:
        try:
            for number in range(6):
                self.told.append(number)
                if number < 5 and self.pieces.over():
                    self.pieces.pause()
            self.told.append((threading.current_thread().name, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        finally:
            self.told.append("unwound")


def test_it_goes_on_for_as_many_pieces_as_it_may() -> None:
    work = Work()
    work.pieces.begin(work.call)
    for pieces, known in ((1, 1), (2, 3), (1, 4)):
        work.pieces.go_on(pieces)
        assert work.told == list(range(known)) and work.pieces.busy
    work.pieces.go_on(100)
    assert work.told == [*range(6), ("pieces", NICE), "unwound"] and not work.pieces.busy
    assert work.pieces.pieces == 6
    work.pieces.go_on(1)  # there is nothing left
    assert len(work.told) == 8


def test_whoever_comes_waits_for_one_piece() -> None:
    work = Work(called=True)
    work.pieces.begin(work.call)
    work.pieces.go_on(100)
    assert work.told == [0]
    work.called = False
    work.pieces.go_on(100)
    assert not work.pieces.busy


def test_a_call_that_is_given_up_is_unwound_and_the_next_one_is_made() -> None:
    work = Work()
    work.pieces.begin(work.call)
    work.pieces.go_on(2)
    work.pieces.begin(work.call)
    assert work.told == [0, 1, "unwound"]
    work.pieces.go_on(1)
    assert work.told == [0, 1, "unwound", 0]
    work.pieces.give_up()
    assert not work.pieces.busy and work.told[-1] == "unwound"
    work.pieces.begin(work.call)
    work.pieces.give_up()  # before it began
    assert not work.pieces.busy and len(work.told) == 5


def test_what_a_call_raises_is_raised_once_where_it_is_waited_for() -> None:
    pieces = Pieces(lambda: False)

    def fails() -> None:
        pieces.pause()
        raise KeyError("gone")

    pieces.begin(fails)
    pieces.go_on(1)
    with pytest.raises(KeyError, match="gone"):
        pieces.go_on(1)
    assert not pieces.busy
    pieces.go_on(1)
