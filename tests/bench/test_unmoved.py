"""A run whose probes all score the same trains nothing, and says so."""

from __future__ import annotations

import pytest

from bench.harness.unmoved import Unmoved, Watch


def test_losses_that_no_probe_changes_stop_the_run():
    watch = Watch("float32")
    for step, losses in enumerate([(0.5, 0.5), (0.5, 0.5000001), (0.4, 0.4), (0.3, 0.3)]):
        watch(step, losses)
    with pytest.raises(Unmoved, match=r"steps 2 to 4: all probes have the same loss to the last bit.* raise --eps"):
        watch(4, (0.2, 0.2))


def test_coarse_losses_and_single_probes_are_given_more_time():
    for dtype, losses, steps in (("float16", (0.5, 0.5), 19), ("float32", (0.5,), 99)):
        watch = Watch(dtype)
        for step in range(steps):
            watch(step, losses)
    with pytest.raises(Unmoved, match="steps 1 to 20"):
        half = Watch("bfloat16")
        half(0, (1.0, 2.0))
        for step in range(1, 30):
            half(step, (0.5, 0.5))
