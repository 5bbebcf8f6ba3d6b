"""Known truths, really profiled on the CPU: so many products, so much memory, so long asleep."""

import gzip
import json
import time
from dataclasses import replace
from io import StringIO

import pytest
import torch
from plain_loop import tiny_spec
from rich.console import Console

from bench.api import phase
from bench.data import Example
from bench.errors import UsageError
from bench.recorders import available, disagreement, observe, table
from bench.recorders.context import ProfileContext

TRACED = ("time_breakdown", "launches", "memory")
MIB = 1 << 20


class Known:
    """An executor whose counts and tensors are known."""

    def __init__(self, weight=None):
        self.weight = torch.zeros(0) if weight is None else weight

    def work(self, batch, probes):
        return {"weight_bytes_written": 0}

    def memory_parts(self):
        return {"weights": self.weight.nbytes, "kv_pool": 0}


@pytest.fixture
def context():
    return ProfileContext(
        executor=Known(),
        spec=tiny_spec("lozo", "eager", lora="dense"),
        source=None,
        task=None,
        batch=(Example((1, 2), ((3,), (4,)), 0),),
        rounds=((),),
        timed_step_s=1e-3,
        device=torch.device("cpu"),
        steps=3,
    )


def test_counts_every_product_and_every_elementwise_operation(context):
    a = torch.randn(16, 16)

    def step(_):
        x = a
        for _ in range(5):
            x = x @ a
        for _ in range(7):
            x = torch.relu(x.t()).t().view(4, 64).view(16, 16)  # views are no work

    found, warnings = observe(context, TRACED, step)
    assert warnings == []
    assert found["launches"]["by_bucket"] == {"gemm": 5, "norm_activation": 7}
    assert found["launches"]["operators"] == 12 and found["launches"]["operator_calls"] > 12
    assert found["launches"]["kernels"] is None


def test_a_module_counts_as_its_layers(context):
    layers = [torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.LayerNorm(8)] * 4
    model = torch.nn.Sequential(*layers).requires_grad_(False)
    found, _ = observe(context, TRACED, lambda _: model(torch.ones(3, 8)) + 1)
    assert found["launches"]["by_bucket"]["gemm"] == 4
    assert found["launches"]["by_bucket"]["norm_activation"] == 4 + 4 + 1 + 1  # and the ones it is fed, and the sum


def test_memory_shows_in_the_right_row(context):
    executor = Known(torch.zeros(16 * MIB))
    found, _ = observe(replace(context, executor=executor), ["memory"], lambda _: torch.empty(64 * MIB, dtype=torch.uint8))
    memory = found["memory"]
    assert memory["parts"] == {"weights": 64 * MIB, "kv_pool": 0, "activations_and_temporaries": 64 * MIB}
    assert memory["allocated_peak"] == 128 * MIB
    assert memory["host_rss_peak"] > 64 * MIB
    assert memory["beside"] == 0 and memory["reserved_peak"] is None and memory["nvml_process"] is None


def test_weights_replaced_by_new_tensors_are_not_temporaries_twice(context):
    executor = Known(torch.zeros(4 * MIB))

    def step(_):
        executor.weight = executor.weight.clone()

    found, _ = observe(replace(context, executor=executor), ["memory"], step)
    assert found["memory"]["parts"]["activations_and_temporaries"] == 16 * MIB


def test_sleep_is_idle_and_the_rows_add_up_to_the_wall_clock(context):
    a = torch.randn(256, 256)

    def step(_):
        with phase("score"):
            for _ in range(20):
                a @ a
        with phase("host"):
            time.sleep(0.02)

    found, warnings = observe(context, ["time_breakdown"], step)
    times = found["time_breakdown"]
    assert warnings == []  # the usual step is as long in the trace as by the wall clock
    assert times["span_s"] == pytest.approx(sum(times["wall_s"]) / 3, rel=0.2)
    assert sum(times["buckets"].values()) + times["idle_s"] == pytest.approx(times["span_s"])
    assert times["idle_s"] >= 0.02
    assert times["phases"]["host"]["wall_s"] >= 0.02 and not times["phases"]["host"]["buckets"]
    assert set(times["phases"]["score"]["buckets"]) == {"gemm"}
    assert times["overhead"] == pytest.approx(sorted(times["wall_s"])[1] / 1e-3)


def test_a_trace_that_differs_from_the_wall_clock_is_told():
    assert disagreement([1.0, 1.0, 1.0], [1.0, 0.96, 0.2]) == []  # one interrupted step is no disagreement
    assert "7%" in disagreement([1.0, 1.0, 1.0], [0.93, 0.93, 1.0])[0]
    assert "2 of 3" in disagreement([1.0, 1.0, 1.0], [1.0, 1.0])[0]


def test_steps_run_once_each_in_order_with_one_to_warm_up(context):
    seen = []
    observe(context, TRACED, seen.append)
    assert seen == [0, 1, 2, 3]


def test_the_trace_names_steps_and_phases(context, tmp_path):
    path = tmp_path / "traces" / "run.json.gz"

    def step(_):
        with phase("perturb"):
            torch.ones(2)

    observe(context, ["launches"], step, path)
    names = {event.get("name") for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]}
    assert {"zo.step 0", "zo.step 2", "zo.perturb", "aten::ones"} <= names


def test_what_this_device_lacks_is_left_out_and_never_invented(context):
    found, warnings = observe(context, ["energy", "launches"], lambda _: None)
    assert set(found) == {"launches"}
    assert "energy" in warnings[0] and "NVIDIA" in warnings[0]
    assert available("energy", "cpu") and available("time_breakdown", "cpu") is None


def test_an_unknown_recorder_lists_the_valid_ones(context):
    with pytest.raises(UsageError, match=r"--record nope: .*time_breakdown"):
        observe(context, ["nope"], lambda _: None)


def test_a_failing_recorder_costs_only_its_own_findings(context):
    class Broken(Known):
        def memory_parts(self):
            raise RuntimeError("out of memory\ndetails")

    found, warnings = observe(replace(context, executor=Broken()), ["memory", "launches"], lambda _: None)
    assert set(found) == {"launches"}
    assert warnings == ["recorder memory failed: out of memory"]


def test_the_table_shows_buckets_and_what_else_was_found(context):
    found, _ = observe(context, TRACED, lambda _: torch.ones(64, 64) @ torch.ones(64, 64))
    console = Console(width=120, record=True, file=StringIO())
    console.print(table(found))
    text = console.export_text()
    for word in ("gemm", "norm_activation", "idle", "operators", "memory 48 KiB"):
        assert word in text
