"""docs/tasks.md from start to end: its file is written as it is printed there, and its commands run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("opt_tiny")
def test_a_users_file_from_start_to_export(tmp_path):
    """A choice is trained and exported, then an answer to generate."""
    blocks = BLOCK.findall((ROOT / "docs" / "tasks.md").read_text())
    (rows,) = (block for kind, block in blocks if kind == "csv")
    (tmp_path / "reviews.csv").write_text(rows)
    commands = [line for kind, block in blocks if kind == "sh" for line in block.replace("\\\n", "").splitlines()]
    said, run = [], ""
    for command in commands:
        arguments = [run if word == "RUN" else word for word in shlex.split(command)]
        assert arguments[:3] == ["python", "-m", "bench"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *arguments[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout.splitlines()[-1]))
        run = said[-1].get("path", run)
    choice, _, answer = said
    assert choice["accuracy_after"] is not None and (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    result = json.loads((tmp_path / answer["path"]).read_text())
    assert result["spec"]["task"] == "own" and result["spec"]["objective"] == "nll"
    last = result["sessions"][0]["evaluations"][-1]
    assert last["metric"] == "f1" and set(last["scores"]) == {"f1", "exact_match"}
