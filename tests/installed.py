"""The command line of an environment in which a package of a user's own is really built and installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

OFFLINE = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]


def bench_with(package: Path, folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """bench(*arguments) runs `python -m bench` beside the package; what is built stays in the folder."""
    source, site = folder / "source", folder / "site"
    shutil.copytree(package, source)  # building leaves files behind
    subprocess.run([sys.executable, "-m", *OFFLINE, "--target", str(site), str(source)], check=True, capture_output=True)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])

    def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench", *arguments]
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)

    return bench
