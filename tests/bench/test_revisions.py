"""Two commits of a small repository, really checked out and run: the second one's steps take twice as long."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.commands import revisions
from bench.result import find_results, load_result

ROOT = Path(__file__).parents[2]
RUN = ["--", "--executor", "fake", "--model", "none", "--device", "cpu", "--steps", "4", "--warmup", "1"]
FAKE, MAIN = "bench/executors/fake/executor.py", "bench/__main__.py"
COMMITS = [
    ("before", FAKE, "", ""),
    ("after", FAKE, "[0.01]", "[0.02]"),
    ("broken", FAKE, "import json", "import nothing_of_that_name"),
    ("killed", MAIN, "import sys", "import os\nimport sys\n\nos.kill(os.getpid(), 9)"),
]


def git(folder, *arguments):
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, env=os.environ | who)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The suite in a repository of its own: `before`, `after` (twice as slow), and two whose sessions do not start."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("bench", "workloads", "baselines", "analysis"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    for name, file, old, new in COMMITS:
        script = folder / file
        text = script.read_text()
        assert old in text
        script.write_text(text.replace(old, new, 1) if old else text)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--allow-empty", "-m", name)
        git(folder, "tag", name)
    return folder


@pytest.fixture
def compare(bench, checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(revisions, "ROOT", checkout)
    return lambda *arguments: bench("compare", "--results", str(tmp_path / "results"), *arguments)


def test_a_commit_that_is_slower_is_found(compare, checkout, tmp_path):
    outcome = compare("--revisions", "before", "after", "--rounds", "3", *RUN)
    assert outcome.code == 1 and "error: fake at" in outcome.err and "2.0x slower" in outcome.err
    lines = [line.split(":")[0] for line in outcome.err.splitlines() if "/3:" in line]
    assert lines == ["before 1/3", "after 1/3", "after 2/3", "before 2/3", "before 3/3", "after 3/3"]
    (row,) = (row for row in outcome.json["tables"][0]["rows"] if row["ratio"])
    assert row["paired"] and row["ratio"] == pytest.approx(0.5)
    found = [load_result(path) for path in find_results([tmp_path / "results"])]
    assert len(found) == 2 and len({r.pair_id for r in found}) == 1 and len({r.source["commit"] for r in found}) == 2
    left = subprocess.run(["git", "-C", str(checkout), "worktree", "list"], capture_output=True, text=True, check=True)
    assert left.stdout.count("\n") == 1


def test_a_commit_beside_itself_is_no_regression(compare):
    outcome = compare("--revisions", "before", "before", "--rounds", "3", *RUN)
    verdicts = [row["verdict"] for row in outcome.json["tables"][0]["rows"]]
    assert outcome.code == 0 and verdicts == ["reference", "no difference (within 5 %)"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--revisions", "before", "nowhere"], 2, "--revisions nowhere: no commit of the checkout"),
        (["--revisions", "before", "after", "--", "--sessions", "2"], 2, "--sessions after --: is set for each session"),
        (["--revisions", "before", "after", "--", "--rank", "none"], 2, "before: none: "),
        (["--revisions", "broken", "before", *RUN], 1, "broken: `"),
        (["--revisions", "killed", "before", *RUN], 1, "failed: signal SIGKILL"),
        (["--revisions", "before", "after", "--rounds", "0"], 2, "--rounds 0"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(compare, arguments, code, words):
    outcome = compare(*arguments)
    assert outcome.code == code and words in outcome.err.splitlines()[-1], outcome.err
