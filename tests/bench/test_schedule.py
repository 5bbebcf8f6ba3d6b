"""The training schedule of a session is a list that can be read: what is due in the state before which step."""

from dataclasses import replace

from bench.config import RunSpec
from bench.harness.schedule import schedule

SPEC = RunSpec(
    **dict(workload="lozo", executor="eager", model="m", weights="random", task="sst2", dtype="float32", device="cpu"),
    **dict(directions="shared", batching="paired", kv="shared", lora="fused", loop="requests", warmup=10, steps=90),
)


def test_an_ordinary_run_pauses_at_its_ends_and_after_the_warm_up():
    assert schedule(SPEC) == [(0, ("checksum",)), (10, ("checksum",)), (100, ("checksum",))]


def test_a_long_one_proves_its_state_every_200_steps():
    assert [step for step, _ in schedule(replace(SPEC, steps=490))] == [0, 10, 200, 400, 500]


def test_checkpoints_stop_short_of_the_end():
    found = dict(schedule(replace(SPEC, checkpoint_every=50)))
    assert found[50] == ("checksum", "checkpoint") and found[100] == ("checksum",)


def test_dev_is_scored_between_timed_steps_and_held_out_at_the_ends():
    found = dict(schedule(replace(SPEC, evaluate=True, eval_every=5)))
    assert found[0] == ("checksum", "eval")
    assert 5 not in found and found[10] == ("checksum",)  # warm-up steps are not interrupted
    assert found[15] == ("checksum", "dev")
    assert found[100] == ("checksum", "dev", "eval", "best")


def test_without_intervals_only_the_ends_are_evaluated():
    found = dict(schedule(replace(SPEC, evaluate=True)))
    assert found[0] == ("checksum", "eval") and found[100] == ("checksum", "eval", "best")
