"""A user's own checkout of upstream's code: which repository and commit it has to be. Imports no torch, so that a wrong one is
refused before anything is loaded.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError


@dataclass(frozen=True)
class Origin:
    """Where a step stands: repository, commit (its first digits), file, and the names of the three methods."""

    repository: str
    commit: str
    file: str
    step: str
    perturb: str
    update: str


ORIGINS = {
    "optsuite/LOZO": Origin(
        "optsuite/LOZO",
        "5d1ade5",
        "large_models/LOZOtrainer.py",
        "lowrank_zo_step",
        "lowrank_zo_perturb_parameters",
        "lowrank_zo_update",
    ),
    "princeton-nlp/MeZO": Origin(
        "princeton-nlp/MeZO", "552cb1b", "large_models/trainer.py", "zo_step", "zo_perturb_parameters", "zo_update"
    ),
}


def git(path: Path, *arguments: str) -> str | None:
    """What git prints; None when it fails."""
    done = subprocess.run(["git", "-C", str(path), *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def commit_of(path: Path, origin: Origin) -> str:
    """The commit that is checked out; UsageError when it is not the origin's."""
    advice = f"clone {origin.repository} and check out {origin.commit}"
    if not path.is_dir():
        raise UsageError(f"--upstream {path}: no such folder; {advice}")
    found = git(path, "rev-parse", "HEAD")
    if found is None:
        raise UsageError(f"--upstream {path}: not a git checkout that git can read; {advice}")
    if not found.startswith(origin.commit):
        raise UsageError(f"--upstream {path}: at commit {found.strip()[:7]}, expected {origin.commit}; {advice}")
    return found.strip()
