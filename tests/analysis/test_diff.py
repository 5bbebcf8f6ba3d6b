"""A diff of two profiled steps with planted gains and losses."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from analysis.diff import bucket_changes, changes, read_side, roofed
from bench.errors import UsageError

BEFORE = [
    ("aten::addmm", "gemm", 0.070, 12),
    ("aten::mul_", "weight_rewrite", 0.020, 8),
    ("aten::relu", "norm_activation", 0.004, 2),
]
AFTER = [
    ("aten::addmm", "gemm", 0.030, 12),
    ("aten::relu", "norm_activation", 0.006, 2),
    ("aten::bmm", "lora_shrink_expand", 0.003, 6),
]
CEILINGS = {"matmul_flop_per_s": 1e11, "copy_bytes_per_s": 1e10}


def findings(rows, flops):
    seconds = sum(row[2] for row in rows)
    bound = {"flops": flops, "bytes": 1e7, "floor_s": flops / 1e11, "binds": "compute"}
    return {
        "operators": {
            "version": 1,
            "on": "cpu",
            "steps": 3,
            "span_s": seconds + 0.001,
            "idle_s": 0.001,
            "rows": [dict(zip(("name", "bucket", "seconds", "calls"), row, strict=True)) for row in rows],
            "rest": {},
            "operators": [{"name": "aten::addmm", "seconds": rows[0][2], "calls": 12, "flops": flops, "bytes": 5e8}],
        },
        "roofline": {"required": bound, "executed": bound, "achieved": 0.2, "achieved_executed": 0.4, "ceilings": CEILINGS},
    }


@pytest.fixture
def files(make_result, write):
    results = [make_result("official", [0.1] * 3), make_result("eager", [0.04] * 3)]
    found = [findings(BEFORE, 4e9), findings(AFTER, 1e9)]
    return write(*(replace(r, sessions=[replace(r.sessions[0], findings=f)]) for r, f in zip(results, found, strict=True)))


def test_gains_and_losses_are_named_and_add_up(files):
    a, b = map(read_side, files)
    found = {change.name: change.gained for change in changes(a, b)}
    assert found == pytest.approx({"aten::addmm": 0.040, "aten::mul_": 0.020, "aten::relu": -0.002, "aten::bmm": -0.003})
    assert [change.name for change in changes(a, b)][:2] == ["aten::addmm", "aten::mul_"]
    buckets = bucket_changes(a, b)
    assert buckets[0].name == "gemm" and sum(c.gained for c in buckets) == pytest.approx(a.listed["span_s"] - b.listed["span_s"])


def test_an_operator_is_held_against_the_binding_ceiling(files):
    (one,), (other,) = (roofed(side) for side in map(read_side, files))
    assert one.floor_s == pytest.approx(0.05) and one.share == pytest.approx(0.05 / 0.07)  # memory: 5e8 / 1e10
    assert other.floor_s == pytest.approx(0.05)  # memory again; arithmetic alone would take 0.01


def test_the_command_prints_both_and_draws(files, tmp_path):
    picture = tmp_path / "out" / "diff.png"
    command = [sys.executable, "-m", "analysis", "diff", *map(str, files), "--output", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in ("Most gained", "Most lost", "aten::mul_", "weight_rewrite", "71.4%", "official", "eager"):
        assert words in done.stderr
    assert json.loads(done.stdout)["gained_s"]["gemm"] == pytest.approx(0.04) and picture.stat().st_size > 5000


def test_what_cannot_be_compared_is_said(files, make_result, write, tmp_path):
    (bare,) = write(make_result("vllm", [0.1]))
    with pytest.raises(UsageError, match="listed no operators; run it again"):
        read_side(bare)
    (tmp_path / "other.json").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(UsageError, match=r"other\.json"):
        read_side(tmp_path / "other.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_side(tmp_path / "nowhere.json")
