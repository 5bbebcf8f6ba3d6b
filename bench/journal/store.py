"""Result files: written whole or not at all, under names that never meet."""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path

from bench.config import RunSpec
from bench.errors import UsageError
from bench.files import write_atomically
from bench.result import Result, checksum

LONGEST = 80
"""Characters of a model's name in a file's: file systems end at 255."""


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
    """File name without its suffix; a hub id or path is cut down to its last part, and that to what a file name bears."""
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(spec.model).name)[:LONGEST] or "model"
    return f"{created}_{spec.workload}_{spec.executor}_{model}_{identifier}"
