"""Work by name: what the shapes ask for, against torch's own counter of FLOPs and against bytes counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from plain_loop import tiny_spec
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from bench import onednn
from bench.data import Example
from bench.errors import UsageError
from bench.recorders import observe
from bench.recorders.context import ProfileContext
from bench.recorders.work import read_file


class Still:
    def work(self, batch, probes):
        return {"weight_bytes_written": 0}


@pytest.fixture
def context():
    spec, batch = tiny_spec("lozo", "eager", lora="dense"), (Example((1, 2), ((3,), (4,)), 0),)
    return ProfileContext(Still(), spec, None, None, batch, ((),), 1e-3, torch.device("cpu"), 3)


LAYER = torch.nn.Linear(64, 32).requires_grad_(False)
PACKED = onednn.pack(LAYER.weight)
X, Q = torch.randn(5, 64), torch.randn(2, 4, 7, 16)
PRODUCTS = {
    "addmm": lambda: LAYER(X),
    "linear without a bias": lambda: torch.nn.functional.linear(X, LAYER.weight),
    "matmul of three axes": lambda: Q[0] @ Q[1].transpose(1, 2),
    "baddbmm": lambda: torch.baddbmm(torch.ones(4, 7, 7), Q[0], Q[0].transpose(1, 2)),
    "mv": lambda: LAYER.weight @ X[0],
    "attention": lambda: scaled_dot_product_attention(Q, Q, Q),
    "packed": lambda: onednn.product(X, PACKED, LAYER.bias),
}

UNCOUNTED = {"mv": 2 * 32 * 64, "attention": 2 * (2 * (2 * 4) * 7 * 7 * 16), "packed": 2 * 5 * 64 * 32}
"""What torch's counter leaves out: products with vectors or packed weights, and attention on a CPU."""


@pytest.mark.parametrize("name", PRODUCTS)
def test_flops_are_those_of_torchs_own_counter(context, name):
    with FlopCounterMode(display=False) as counter:
        PRODUCTS[name]()
    truth = counter.get_total_flops() or UNCOUNTED[name]
    found, warnings = observe(context, ["operators"], lambda _: PRODUCTS[name]())
    assert warnings == [] and sum(row["flops"] for row in found["operators"]["operators"]) == truth


def test_bytes_are_what_is_read_and_written_once(context):
    found, _ = observe(context, ["operators"], lambda _: (torch.relu(X), X.half(), torch.addmm(LAYER.bias, X, LAYER.weight.t())))
    held = {row["name"]: row for row in found["operators"]["operators"]}
    assert held["aten::clamp_min"]["bytes"] == 2 * X.nbytes
    assert held["aten::addmm"]["bytes"] == 4 * (5 * 64 + 64 * 32 + 5 * 32)
    assert "aten::t" not in held and "aten::as_strided" not in held  # views move nothing
    assert "aten::to" not in held and held["aten::addmm"]["calls"] == 1


def test_rows_rest_and_idle_add_up_to_the_step_and_agree_with_the_breakdown(context):
    found, _ = observe(context, ["operators", "time_breakdown"], lambda _: [PRODUCTS[name]() for name in PRODUCTS])
    work, times = found["operators"], found["time_breakdown"]
    buckets = dict(work["rest"])
    for row in work["rows"]:
        buckets[row["bucket"]] = buckets.get(row["bucket"], 0) + row["seconds"]
    assert buckets == pytest.approx(times["buckets"])
    assert math.fsum(buckets.values()) + work["idle_s"] == pytest.approx(work["span_s"]) == pytest.approx(times["span_s"])


def test_a_kept_trace_holds_the_same_list(context, tmp_path):
    path = tmp_path / "run_0.json.gz"
    found, _ = observe(context, ["operators"], lambda _: LAYER(X), path)
    assert read_file(path) | {"version": 1, "overhead": found["operators"]["overhead"]} == found["operators"]


@pytest.mark.parametrize("content", [b"", b"no json", b"[1]", b'{"traceEvents": []}', b"\x1f\x8bcut off"])
def test_what_is_no_trace_is_said(tmp_path, content):
    (tmp_path / "t.json.gz").write_bytes(content)
    with pytest.raises(UsageError, match=r"t\.json\.gz: (no trace|marks no step)"):
        read_file(tmp_path / "t.json.gz")
