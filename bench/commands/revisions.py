"""`compare --revisions A B`: sessions of two commits in turn on this machine, each commit in a git worktree of its own.

Each session is a `run` of the commit's own suite with the arguments given. What the sessions of a point found becomes one result
file a commit; the two share a pair id, so that they are compared round by round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from analysis.runs import Run
from bench.environment import ROOT, git
from bench.errors import UsageError, command
from bench.harness.process import Stop, exit_words, stoppable
from bench.journal.store import Store, new_id
from bench.result import Result, load_result


class SessionFailed(Exception):
    """A session of one of the commits did not come to its end."""


OURS = ("--sessions", "--results", "--resume")
POLL_S = 0.2


def measure(
    revisions: tuple[str, str], arguments: Sequence[str], rounds: int, store: Store, console: Console
) -> tuple[list[Run], list[Run]]:
    """The runs of both commits, written after every round. UsageError for what git or a commit's `run` refuses."""
    if rounds < 1:
        raise UsageError(f"--rounds {rounds}: must be at least 1")
    for argument in arguments:
        if (name := argument.split("=")[0]) in OURS:
            raise UsageError(f"{name} after --: is set for each session here; use --rounds for how many there are")
    commits = [_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}") for name in revisions]
    for name, found in zip(revisions, commits, strict=True):
        if found is None:
            raise UsageError(f"--revisions {name}: no commit of the checkout {ROOT}; name a commit, a branch or a tag of it")
    quiet = [] if {"--profile", "--record", "--trace"} & set(arguments) else ["--no-profile"]
    held: list[dict[str, list[Result]]] = [{}, {}]
    pair_id, ids = new_id(), [dict[str, str](), dict[str, str]()]
    with ExitStack() as opened:
        folder, stop = Path(opened.enter_context(TemporaryDirectory(prefix="zo-bench-"))), opened.enter_context(stoppable())
        trees = opened.enter_context(checked_out(folder, [str(one) for one in commits]))
        for index in range(rounds):
            for side in (0, 1) if index % 2 == 0 else (1, 0):
                began = time.monotonic()
                asked = ["run", *arguments, *quiet, "--sessions", "1", "--results", str(folder / f"results{side}")]
                for path in session(trees[side], asked, revisions[side], folder / "log", stop):
                    result = load_result(path)
                    held[side].setdefault(json.dumps(result.spec, sort_keys=True), []).append(result)
                console.print(f"{revisions[side]} {index + 1}/{rounds}: {time.monotonic() - began:.0f} s", soft_wrap=True)
            runs = [[merged(found, pair_id, ids[s], store) for found in held[s].values()] for s in (0, 1)]
    return runs[0], runs[1]


def session(tree: Path, arguments: Sequence[str], revision: str, log: Path, stop: Stop) -> list[str]:
    """One `run` of a commit's suite; the paths of its results. It is ended where this process is told to end."""
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and Path(p).resolve() != ROOT]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tree), *others])
    with open(log, "wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "bench", *arguments], cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=errors
        )
        assert child.stdout is not None
        while child.poll() is None:
            if stop.signal:
                child.terminate()
            time.sleep(POLL_S)
        out = child.stdout.read().decode()
    said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    if stop.signal:
        raise SessionFailed(f"interrupted by {stop.signal}; the whole rounds before it are kept")
    if child.returncode == 2:
        raise UsageError(f"{revision}: {said[-1].removeprefix('error: ')}")
    if child.returncode:
        why = exit_words(child.returncode) if child.returncode < 0 else said[-1]
        raise SessionFailed(f"{revision}: `{command(*arguments)}` failed: {why}")
    last = json.loads(out.strip().splitlines()[-1])
    return [row["path"] for row in last.get("runs", [last])]


def merged(found: Sequence[Result], pair_id: str, ids: dict[str, str], store: Store) -> Run:
    """The sessions of a point at a commit as one result, a session a round."""
    first = found[0]
    identifier = ids.setdefault(json.dumps(first.spec, sort_keys=True), new_id())
    sessions = [replace(result.sessions[0], index=index) for index, result in enumerate(found)]
    failed = next((result for result in found if result.status != "passed"), first)
    whole = replace(first, id=identifier, status=failed.status, sessions=sessions, pair_id=pair_id)
    return Run(store.write(whole), whole)


@contextmanager
def checked_out(folder: Path, commits: Sequence[str]) -> Iterator[list[Path]]:
    """A worktree for each commit, gone when this closes."""
    trees = [folder / f"tree{number}" for number in range(len(commits))]
    try:
        for tree, found in zip(trees, commits, strict=True):
            if _git("worktree", "add", "--detach", str(tree), found) is None:
                raise UsageError(f"--revisions {found}: git cannot check it out into {tree}; `git worktree add` says why")
        yield trees
    finally:
        for tree in trees:
            _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> str | None:
    return git(*arguments, root=ROOT, timeout_s=None)
