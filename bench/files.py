"""Files that are whole or not there, that others may read as the umask allows, and that are found from anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old content or the new, never a part; nothing is left behind when the disk is full."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: a file that was synced may else be lost with its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def anchored(path: str) -> str:
    """The same path from any working directory: absolute, and without `..` where no symbolic link stands in the way."""
    path = os.path.expanduser(path)
    plain = os.path.abspath(path)
    return plain if os.path.realpath(plain) == os.path.realpath(path) else os.path.join(os.getcwd(), path)


def refuse_constant(name: str) -> float:
    """For `json.loads(..., parse_constant=refuse_constant)`: NaN and Infinity are no JSON. ValueError."""
    raise ValueError(f"{name} is not JSON")


def share(path: Path) -> None:
    """Give a file, or a folder and all in it, the permissions of newly made ones: safetensors and mkdtemp make theirs private."""
    for found in (path, *path.rglob("*")):
        found.chmod((0o777 if found.is_dir() else 0o666) & ~_umask())


def _umask() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Umask:")), 8)
