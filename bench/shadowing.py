"""Files in the working directory that hide modules of the same name: `python -m` looks there first.

A folder `datasets/` or a file `tokenizers.py` beside somebody's data is enough to break an import deep inside a library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

from bench.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
OURS = ("bench", "workloads", "baselines", "analysis")
NAMES = """
    accelerate click cpuinfo datasets dill fastapi filelock fsspec httpx huggingface_hub jinja2 matplotlib mlflow
    multiprocess numpy packaging pandas peft psutil pyarrow pydantic pynvml ray regex requests rich safetensors scipy
    seaborn tokenizers torch tqdm transformers triton typer typing_extensions uvloop vllm wandb yaml
"""
LIBRARIES = tuple(NAMES.split())
"""What the suite imports, and what that imports under names that people use too."""


def refuse_hidden() -> None:
    """UsageError when the search path finds another file in place of the suite's, a library's or Python's."""
    for name in OURS:
        found = PathFinder.find_spec(name)
        if found is not None and found.origin and not _same(Path(found.origin).parents[1], ROOT):
            raise UsageError(f"{found.origin}: hides the suite's package {name}; rename it, or take its folder off PYTHONPATH")
    try:
        here = os.getcwd()
    except OSError:
        raise UsageError("the working directory is gone; change to one that exists") from None
    if any(_same(folder or here, here) for folder in sys.path) and not _same(here, ROOT) and (files := hidden_by(here)):
        raise UsageError(f"{files[0]}: hides the module of that name; rename it, or take the working directory off PYTHONPATH")


def hidden_by(folder: str, names: Iterable[str] = (*OURS, *LIBRARIES, *sys.stdlib_module_names)) -> list[str]:
    """Files in a folder that an import of one of the names would find there."""
    found = (PathFinder.find_spec(name, [folder]) for name in names)
    return [spec.origin for spec in found if spec is not None and spec.origin]  # a folder without __init__.py hides nothing


def child_environment() -> dict[str, str]:
    """What a child that is started with `python -m` needs to find this suite, wherever it was found, and no working directory.

    Its own children inherit it: vLLM starts some.
    """
    before = os.environ.get("PYTHONPATH")
    installed = ROOT.name in ("site-packages", "dist-packages")
    paths = ([] if installed else [str(ROOT)]) + ([before] if before else [])
    return {"PYTHONSAFEPATH": "1"} | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})


def _same(a: str | Path, b: str | Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False
