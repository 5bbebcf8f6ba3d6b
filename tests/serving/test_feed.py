"""Minibatches: the executors' own until somebody posts a row, and the same ones again after a restart."""

from __future__ import annotations

from itertools import islice

from bench.data import Example
from bench.serving.feed import Feed
from workloads.tasks.batches import batch_stream

TRAIN = tuple(Example((0, number), ((7,), (9,)), 0) for number in range(10, 50))
POSTED = tuple(Example((0, number), ((7,), (9,)), 1) for number in range(100, 120))


def test_without_posted_rows_they_are_those_of_every_executor() -> None:
    feed = Feed(TRAIN, 16, 3, 100)
    own = list(islice(batch_stream(TRAIN, 16, 3), 7))
    assert [feed.next(step) for step in range(7)] == own


def test_posted_rows_come_next_and_then_as_often_as_others() -> None:
    feed = Feed(TRAIN, 16, 3, 100)
    feed.next(0)
    feed.add(2, POSTED)
    before = feed.next(1)
    assert not set(before) & set(POSTED)
    first = [feed.next(step) for step in (2, 3, 4)]
    assert all(len(set(batch) & set(POSTED)) <= len(batch) // 2 for batch in first)
    assert set(POSTED) <= {example for batch in first for example in batch} | set(feed._used) | {e for _, e in feed.waiting}
    later = [feed.next(step) for step in range(5, 305)]
    shares = [example in POSTED for batch in later for example in batch]
    assert 0.2 < sum(shares) / len(shares) < 0.4  # 20 of 60 rows, rounded down in every minibatch
    assert all(len(batch) in (16, 8) for batch in later)


def test_a_restart_deals_the_same_minibatches() -> None:
    def deal(times: tuple[int, ...]) -> list:
        feed, dealt = Feed(TRAIN, 16, 3, 100), []
        for step in range(30):
            for number, at in enumerate(times):
                if at == step:
                    feed.add(step + 1, POSTED[5 * number : 5 * number + 5])
            dealt.append(feed.next(step))
        return dealt

    late = Feed(TRAIN, 16, 3, 100)  # knows everything from the start, as a journal does
    for number, at in enumerate((2, 2, 9)):
        late.add(at + 1, POSTED[5 * number : 5 * number + 5])
    assert deal((2, 2, 9)) == [late.next(step) for step in range(30)]
