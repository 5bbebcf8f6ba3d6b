"""Where generated models, tokenizers, configurations and measured ceilings are kept, for one user or for several."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from bench.errors import UsageError
from bench.files import share

VARIABLE = "ZO_BENCH_CACHE"


def cache_dir() -> Path:
    """$ZO_BENCH_CACHE, else zo-bench in the user's cache folder. UsageError where nobody knows the user's home."""
    if chosen := os.environ.get(VARIABLE):
        return Path(os.path.expanduser(chosen)).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "zo-bench"
    except RuntimeError:
        raise UsageError(f"HOME: not set, and this user has no home; set {VARIABLE} to a folder for generated models") from None


@contextmanager
def in_cache() -> Iterator[None]:
    """While files of the cache are read or written: UsageError says which variable names it and what to do."""
    try:
        yield
    except OSError as error:
        names = [name for name in (VARIABLE, "XDG_CACHE_HOME", "HOME") if os.environ.get(name)]
        given = f"{names[0]}={os.environ[names[0]]}" if names else "HOME is not set"
        why = f"{error.filename or cache_dir()}: {error.strerror or error}"
        raise UsageError(f"{given}: the cache cannot be used, {why}; set {VARIABLE} to a folder that can be written") from None


def kept(name: str, build: Callable[[Path], None]) -> Path:
    """The folder of that name in the cache, built on first use; readable to whom the umask lets read.

    It is built beside its place and moved there; a process that loses the race uses the winner's.
    """
    target = cache_dir() / name
    with in_cache():
        if not target.exists():
            temporary = target.with_name(f".{name}.{uuid4().hex}")
            temporary.mkdir(parents=True)
            try:
                build(temporary)
                share(temporary)
                os.replace(temporary, target)
            except OSError:
                if not target.exists():
                    raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        os.listdir(target)
    return target
