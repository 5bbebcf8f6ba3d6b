"""The Python API: a run, its table, and a comparison, in a few lines."""

import subprocess
import sys

import pytest

import bench.notebook as zo
from bench.errors import UsageError


def test_run_look_compare(tiny_source, tmp_path):
    source = tiny_source("opt", vocab_size=700, max_position_embeddings=128)
    what = {"model": source.path, "weights": "random", "steps": 3, "warmup": 1}
    official, eager = zo.run(executors=["official", "eager"], sessions=1, results=tmp_path, **what)
    assert [official.spec["executor"], eager.spec["executor"]] == ["official", "eager"]
    assert len(eager.sessions[0].step_s) == 3
    table = zo.table(official, eager)
    assert set(table.executor) == {"official", "eager"} and {"step_s", "loss", "launches"} <= set(table.metric)
    row = zo.compare(official, eager).set_index("executor").loc["eager"]
    assert row.ratio > 0 and row.step_s_median > 0
    again = zo.load(tmp_path)
    assert {run.result.id for run in again} == {official.result.id, eager.result.id}


def test_what_cannot_be_run_is_said_at_once(tmp_path):
    with pytest.raises(UsageError, match="--rank 0"):
        zo.run(rank=0, results=tmp_path)


def test_importing_it_is_light():
    code = "import bench.notebook, sys; sys.exit(any(m in sys.modules for m in ('torch', 'vllm', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
