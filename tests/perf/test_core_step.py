"""The core step of each executor: timed for the record, gated on exact counts and on a ratio within this process.

After a change that is meant to alter the counts: `python -m pytest tests/perf --update-baseline`, and commit the file. On a
named GPU runner, `--perf-device cuda --benchmark-only` times the steps there; once with `--benchmark-save=main`, then with
`--benchmark-compare --benchmark-compare-fail=median:10%`. Times stored on another device are refused.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import torch
from counted import measure
from gates import BASELINE, NAMES, count_problems, loss_problems, ratio_problems

from workloads.reference import reference_losses


@pytest.mark.parametrize("name", NAMES)
def test_time_for_the_record(name: str, points: dict[str, Any], benchmark: Any) -> None:
    """Three warm-up rounds, then seven of one step each; the counters go into the file beside the times."""
    point = points[name]
    benchmark.extra_info.update(executor=name, **point.work)
    benchmark.pedantic(point.step, rounds=7, iterations=1, warmup_rounds=3)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_baselines(
    name: str, points: dict[str, Any], baseline: dict[str, dict[str, int]], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--update-baseline", default=False):
        baseline[name] = measure(points[name].executor, points[name].step)
        BASELINE.write_text(json.dumps(baseline, indent=2, sort_keys=True) + "\n")
    assert baseline[name].keys() == {"forwards", "tokens_scored", "weight_bytes_written", "adapter_bytes_written", "operators"}
    assert count_problems(points[name], baseline[name]) == []


def test_vllm_is_faster_than_the_official_loop(points: dict[str, Any]) -> None:
    assert ratio_problems(points["official"], points["vllm"]) == []


def test_times_of_another_device_are_no_yardstick(request: pytest.FixtureRequest) -> None:
    config: Any = request.config
    here = config._benchmarksession.get_machine_info()
    facts = {"config": config, "benchmarksession": config._benchmarksession, "machine_info": here}
    compare = partial(config.hook.pytest_benchmark_compare_machine_info, **facts)
    compare(compared_benchmark={"machine_info": here})
    with pytest.raises(pytest.exit.Exception, match=r"'NVIDIA H200'.*compare on one device"):
        compare(compared_benchmark={"machine_info": here | {"device": "NVIDIA H200"}})


@pytest.fixture
def truth(points: dict[str, Any], source: Any) -> torch.Tensor:
    """The losses of vllm's next plan over the weights it started from: nothing may be pending, so its state is set back."""
    point = points["vllm"]
    worker_state(point).moved.state.pending.clear()
    return reference_losses(source, point.spec, point.batch, point.workload.plan(point.number))


def worker_state(point: Any) -> Any:
    return point.executor._llm.llm_engine.model_executor.driver_worker.worker.zo


class TestTheGuardIsGuarded:
    """Planted regressions, each caught by a message that names it."""

    def test_nothing_planted_nothing_found(self, points: dict[str, Any], baseline: Any, truth: torch.Tensor) -> None:
        assert loss_problems(points["vllm"], truth) == []
        for _ in range(2):  # after a fold the first update is kept as drawn and the second opens the sum: other operators
            points["vllm"].step()
        assert count_problems(points["vllm"], baseline["vllm"]) == []

    def test_a_second_forward_per_prompt(self, points: dict[str, Any], baseline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from bench.executors.vllm.forward import Forward

        once = Forward.hidden
        monkeypatch.setattr(Forward, "hidden", lambda *a: (once(*a), once(*a))[1])
        problems = count_problems(points["vllm"], baseline["vllm"])
        assert any("vllm: forwards is 2, the baseline has 1" in problem for problem in problems)

    def test_a_weight_rewrite_in_the_adapter_path(
        self, points: dict[str, Any], baseline: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from bench.executors.vllm.resident import Resident

        prepare = Resident.prepare

        def rewriting(self: Resident, probes: Any) -> None:
            for weight in self.moved.weights.values():
                weight.mul_(1.0)
            prepare(self, probes)

        monkeypatch.setattr(Resident, "prepare", rewriting)
        problems = count_problems(points["vllm"], baseline["vllm"])
        written = sum(weight.nbytes for weight in worker_state(points["vllm"]).moved.weights.values())
        assert f"vllm: weight_bytes_written is {written}, the baseline has 0" in problems

    def test_extra_work_in_the_step(self, points: dict[str, Any], baseline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A third of the layers' products once more: seen in the operators, whatever the clock says."""
        from bench.executors.vllm.forward import Forward

        once = Forward.hidden

        def extra(self: Forward, *arguments: Any) -> torch.Tensor:
            hidden = once(self, *arguments)
            for _ in range(3):
                hidden @ hidden.t()
            return hidden

        monkeypatch.setattr(Forward, "hidden", extra)
        problems = count_problems(points["vllm"], baseline["vllm"])
        assert len(problems) == 1 and problems[0].startswith("vllm: operators is")

    def test_a_slower_step_fails_the_ratio(self, points: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        from bench.executors.vllm.forward import Forward

        once = Forward.hidden
        monkeypatch.setattr(Forward, "hidden", lambda *a: [once(*a) for _ in range(4)][-1])
        problems = ratio_problems(points["official"], points["vllm"])
        assert problems and problems[0].startswith("official / vllm: step-time ratio")

    def test_a_changed_loss(self, points: dict[str, Any], truth: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        from bench.executors.vllm import scoring

        right = scoring.batch_loss
        monkeypatch.setattr(scoring, "batch_loss", lambda what, scores, batch: right(what, scores * 1.01, batch))
        (problem,) = loss_problems(points["vllm"], truth)
        assert problem.startswith("vllm: losses are off by")
