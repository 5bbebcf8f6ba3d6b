"""The report is one page with everything in it, and the analysis never needs an engine."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from analysis.report import write_report
from analysis.runs import load_runs
from analysis.table import tidy
from bench.errors import UsageError

FINDINGS = {
    "time_breakdown": {"version": 1, "span_s": 0.1, "buckets": {"gemm": 0.07, "attention": 0.02}, "idle_s": 0.01},
    "launches": {"version": 1, "kernels": None, "operators": 120},
    "memory": {"version": 1, "parts": {"weights": 2**20, "kv_pool": 2**19}},
    "roofline": {
        "version": 1,
        "required": {"flops": 10**9, "bytes": 10**7, "floor_s": 0.01},
        "ceilings": {"matmul_flop_per_s": 1e11, "copy_bytes_per_s": 1e10},
    },
}


@pytest.fixture
def runs(make_result, write):
    found = [make_result("official", [1.0, 1.1, 0.9]), make_result("vllm", [0.1, 0.11, 0.09])]
    found = [replace(r, sessions=[*r.sessions[:-1], replace(r.sessions[-1], findings=FINDINGS)]) for r in found]
    return load_runs(write(*found))


def test_one_self_contained_page_and_a_picture_for_each_figure(runs, tmp_path):
    page = write_report(runs, tmp_path / "report", "python -m analysis report results").read_text()
    names = {path.stem for path in (tmp_path / "report").glob("*.png")}
    assert names == {"sessions", "time_breakdown", "launches", "memory", "roofline", "scaling", "losses"}
    assert page.count("<svg") == len(names)
    assert not re.search(r'(src|href)="https?://', page.replace("http://www.w3.org", ""))
    assert all(run.path.name in page for run in runs) and "python -m analysis report results" in page


def test_ids_of_the_figures_do_not_meet(runs, tmp_path):
    page = write_report(runs, tmp_path / "report", "x").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_table_is_tidy(runs):
    table = tidy(runs)
    assert not table.duplicated(["file", "session", "metric", "key"]).any()
    assert table[(table.metric == "step_s") & (table.executor == "vllm")].value.tolist() == pytest.approx([0.1, 0.11, 0.09])
    assert table[(table.metric == "bucket_s") & (table.key == "idle")].value.tolist() == [0.01, 0.01]


def test_nothing_to_report_is_said(tmp_path):
    with pytest.raises(UsageError, match="timed"):
        write_report([], tmp_path, "x")


def test_the_analysis_imports_no_engine():
    code = (
        "import analysis.report, analysis.losses, analysis.path, analysis.compare, sys;"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'vllm', 'baselines', 'bench.executors')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
