"""docs/extending.md holds what it says: its package is installed as it is printed there, and its command run."""

import re
import shlex
from pathlib import Path

import pytest
from installed import bench_with

from bench.result import find_results, load_result

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_package_of_the_page_adds_a_workload_a_task_an_executor_and_a_recorder(tmp_path):
    blocks = BLOCK.findall(PAGE.read_text())
    package = tmp_path / "package"
    for kind, block in (found for found in blocks if found[0] != "sh"):
        file = package / ("zo_example/riddles.csv" if kind == "csv" else block.split("\n", 1)[0].removeprefix("# "))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block)
    (package / "zo_example" / "__init__.py").touch()
    bench, results = bench_with(package, tmp_path), tmp_path / "results"
    (command,) = (block for kind, block in blocks if kind == "sh")
    done = bench(*shlex.split(command.replace("\\\n", ""))[3:], "--results", str(results))
    assert done.returncode == 0, done.stderr

    found = {result.spec["executor"]: result.sessions[0] for result in map(load_result, find_results([results]))}
    rowwise, eager = found["rowwise"], found["eager"]
    for ours, theirs in zip(rowwise.losses, eager.losses, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-5)
    for (plus, minus), (gradient,) in zip(eager.losses, eager.projected_gradients, strict=True):
        assert gradient == pytest.approx(max(-5, min(5, (plus - minus) / 2e-3)), rel=1e-3)
    assert max(abs(plus - minus) / 2e-3 for plus, minus in eager.losses) > 5  # the clipping had something to do
    assert rowwise.findings["padding"]["share"] == 0
    assert eager.findings["padding"]["share"] == pytest.approx(0.211, abs=0.001)
