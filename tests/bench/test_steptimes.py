"""The amortised step: plain steps and folds measured apart, weighted by how often each comes."""

import pytest

from bench.result import SessionResult
from bench.steptimes import StepTimes, step_times


def session(**fields):
    return SessionResult(0, "passed", **fields)


def test_it_is_the_mean_over_whole_intervals():
    """Two whole intervals of four steps, the fold first: nothing to weigh, the plain mean of all."""
    seconds = [5.0, 1.0, 1.2, 1.1] * 2
    found = step_times(session(step_s=seconds, kinds=["fold", "plain", "plain", "plain"] * 2, fold_every=4))
    assert found.amortised == pytest.approx(sum(seconds) / 8)


def test_a_block_has_one_fold_whatever_the_interval():
    found = step_times(session(step_s=[1.0, 1.2, 11.1], kinds=["plain", "plain", "fold"], fold_every=50))
    assert (found.plain, found.fold) == pytest.approx((1.1, 11.1))
    assert found.amortised == pytest.approx((49 * 1.1 + 11.1) / 50)


def test_warm_up_steps_have_kinds_too():
    found = step_times(session(warmup_s=[9.0], step_s=[1.0, 3.0], kinds=["resample", "plain", "fold"], fold_every=2))
    assert found == StepTimes(1.0, 3.0, 2.0)


def test_steps_after_a_pause_do_not_count():
    assert step_times(session(step_s=[9.0, 1.0, 1.0], kinds=["paused", "plain", "resample"])).amortised == 1.0
    assert step_times(session(step_s=[9.0], kinds=["paused"])).amortised == 9.0  # there is no other


def test_where_every_step_folds_that_is_the_step():
    assert step_times(session(step_s=[2.0, 4.0], kinds=["fold", "fold"], fold_every=1)).amortised == 3.0


def test_folds_that_nobody_timed_or_recorded_are_not_made_up():
    unseen = step_times(session(step_s=[1.0, 2.0], kinds=["plain", "plain"], fold_every=50))
    assert unseen.amortised is None and unseen.best_known == 1.5
    old = step_times(session(step_s=[1.0, 1.1, 9.0]))
    assert old.amortised is None and old.best_known == 1.1


def test_no_steps_are_an_error():
    with pytest.raises(ValueError, match="no timed steps"):
        step_times(session())
