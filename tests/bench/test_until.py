"""`run --until`: what it takes for a target, where it stops, and what is kept of it. On the fake executor."""

from __future__ import annotations

import pytest

from bench.errors import UsageError
from bench.result import Reached, find_results, load_result
from bench.until import Until


def session(tmp_path):
    (path,) = find_results([tmp_path])
    return load_result(path).sessions[0]


def test_it_stops_where_the_dev_split_is_there(fake, script, tmp_path):
    """Two warm-up steps, a look at the dev split at 4 and 6; held out before and after, and at the best state."""
    what = script(step_s=[0.5], accuracy=[0.5, 0.6, 0.9, 0.8, 0.7])
    outcome = fake("--data", what, "--sessions", "1", "--steps", "40", "--eval-every", "2", "--until", "accuracy=0.85")
    found = session(tmp_path)
    assert outcome.code == 0 and len(found.losses) == 6
    assert found.reached == Reached(step=6, seconds=3.0, forwards=12)
    assert [(e.step, e.split) for e in found.evaluations][:4] == [(0, "eval"), (4, "dev"), (6, "dev"), (6, "eval")]
    assert "target reached at step 6 after 3.0 s of steps" in outcome.err
    assert outcome.json["reached"] == [{"step": 6, "seconds": 3.0, "forwards": 12}]


def test_a_target_that_is_not_reached_is_no_failure(fake, tmp_path):
    outcome = fake("--sessions", "1", "--eval-every", "2", "--until", "loss=0.001")
    assert outcome.code == 0 and session(tmp_path).reached is None and len(session(tmp_path).losses) == 6
    assert outcome.json["reached"] == [None]


def test_the_dev_split_is_looked_at_without_being_asked(fake, tmp_path):
    fake("--sessions", "1", "--steps", "60", "--until", "accuracy=1.0")
    assert [e.step for e in session(tmp_path).evaluations if e.split == "dev"] == [25, 50, 62]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("--until", "0.9"), "--until 0.9: must be a metric and a number, such as accuracy=0.9 or loss=0.3"),
        (("--until", "accuracy=high"), "must be a metric and a number"),
        (("--until", "f1=0.5"), "--until f1=0.5: the task is judged by accuracy; give accuracy=... or loss=..."),
        (("--until", "loss=0.5", "--eval-every", "0"), "give --eval-every N"),
    ],
)
def test_what_is_no_target_is_refused(fake, typed, words):
    outcome = fake(*typed)
    assert outcome.code == 2 and words in outcome.err


def test_a_score_has_to_be_at_least_and_a_loss_at_most():
    assert Until.parse("accuracy=0.9").reached(0.9, 5.0) and not Until.parse("accuracy=0.9").reached(0.89, 0.0)
    assert Until.parse("loss=0.3").reached(0.0, 0.3) and not Until.parse("loss=0.3").reached(1.0, 0.31)
    with pytest.raises(UsageError):
        Until.parse("=0.9")
