"""Result files: written whole or not at all, under names that never meet."""

from __future__ import annotations

import json
import os
import re
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path

from bench.config import RunSpec
from bench.errors import UsageError
from bench.result import Result, checksum


def new_id() -> str:
    return uuid.uuid4().hex[:8]


def utc_now() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


class Store:
    """`folder`/local, made if missing. UsageError at once when nothing can be written there."""

    def __init__(self, folder: str | Path) -> None:
        self.local = Path(folder) / "local"
        try:
            self.local.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.local):
                pass
        except OSError as error:
            raise UsageError(f"--results {folder}: cannot be written ({error.strerror}); give a writable folder") from None

    def path(self, result: Result) -> Path:
        return self.local / f"{stem(result.created, RunSpec.from_json(result.spec), result.id)}.json"

    def write(self, result: Result) -> Path:
        """Write (or overwrite) the file of a result: to a temporary file, to the disk, then renamed into place."""
        path = self.path(result)
        data = result.to_json()
        text = json.dumps(data | {"checksum": checksum(data)}, indent=1, allow_nan=False)
        try:
            write_atomically(path, text)
        except OSError as error:
            raise OSError(f"{path}: cannot be written ({error.strerror}); files written before are intact") from error
        return path


def stem(created: str, spec: RunSpec, identifier: str) -> str:
    """File name without its suffix; a hub id or path is cut down to its last part."""
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(spec.model).name) or "model"
    return f"{created}_{spec.workload}_{spec.executor}_{model}_{identifier}"


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old content or the new, never a part; nothing is left behind when the disk is full."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: a file that was synced may else be lost with its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
