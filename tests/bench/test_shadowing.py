"""A working directory with files named like our modules: nothing of it is imported, by this program or by what it starts."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.shadowing import LIBRARIES, OURS, ROOT, child_environment

FAKE = ("run", "--executor", "fake", "--model", "none", "--device", "cpu", "--no-profile", "--sessions", "1", "--steps", "2")
FILES = ("datasets/__init__.py", "tokenizers.py", "analysis.py", "workloads/__init__.py", "random.py", "torch/__init__.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose modules end every program that imports them; pandas there is a folder of data and hides nothing."""
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise SystemExit('imported {name}')\n")
    (tmp_path / "pandas").mkdir()
    return tmp_path


def run(folder: Path, *command: str, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


def test_python_m_bench_runs_and_names_what_it_left_out(folder):
    done = run(folder, "-m", "bench", *FAKE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "passed"
    note = done.stderr.splitlines()[0]
    assert all(str(folder / name) in note for name in FILES) and "pandas" not in note


def test_the_command_needs_no_such_note_and_bears_even_a_bench_there(folder):
    (folder / "bench.py").write_text("raise SystemExit('imported bench.py')\n")
    scripts = folder.parent / f"{folder.name}-scripts"
    scripts.mkdir()
    script = scripts / "zo-bench"  # as an installer writes it for the entry in pyproject.toml
    script.write_text("import sys\nfrom bench.__main__ import main\nsys.exit(main())\n")
    done = run(folder, str(script), *FAKE)
    assert done.returncode == 0, done.stderr
    assert "note" not in done.stderr
    assert "Usage: zo-bench" in run(folder, str(script), "--help").stdout
    assert 'zo-bench = "bench.__main__:main"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("entry", [".", ""])
def test_a_search_path_that_names_the_working_directory_is_refused(tmp_path, entry):
    (tmp_path / "tokenizers.py").touch()
    done = run(tmp_path, "-m", "bench", "list", path=os.pathsep.join([str(ROOT), entry]))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and f"{tmp_path}/tokenizers.py" in done.stderr and "PYTHONPATH" in done.stderr


def test_a_package_of_another_project_in_place_of_ours_is_named(tmp_path):
    (tmp_path / "analysis.py").touch()
    done = run(tmp_path.parent, "-m", "bench", "list", path=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.returncode == 2 and f"{tmp_path}/analysis.py: hides the suite's package analysis" in done.stderr


def test_a_working_directory_that_is_gone_is_said(tmp_path):
    (tmp_path / "gone").mkdir()
    line = f"cd gone; rmdir ../gone; {sys.executable} -m bench list"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (2, "error: the working directory is gone; change to one that exists\n")


def test_children_and_theirs_look_for_nothing_in_the_working_directory(folder):
    """`python -m random` stands for the module that vLLM runs in a process of its own while it looks at a model."""
    grandchild = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-m', 'random']).returncode)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | child_environment()
    done = subprocess.run([sys.executable, "-c", grandchild], cwd=folder, env=environment, capture_output=True, text=True)
    assert "imported" not in done.stderr and done.returncode == 0
    where = subprocess.run(
        [sys.executable, "-c", "import bench; print(bench.__file__)"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert where.stdout.strip() == str(ROOT / "bench" / "__init__.py")


def test_the_list_of_libraries_is_what_the_code_imports():
    imported = set()
    for top in OURS:
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                imported |= {name.partition(".")[0] for name in names}
    assert imported - {*sys.stdlib_module_names} - {*OURS} <= {*LIBRARIES}
