"""Snapshots beside a journal: safetensors, written whole or not at all, listed in the journal with their checksums.

What the journal does not list does not exist, so a run killed while it saves loses nothing but the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.files import share, sync_folder
from bench.journal.entries import SnapshotEntry
from bench.journal.file import SUFFIX

if TYPE_CHECKING:
    from bench.api import Snapshot

KEPT = 2
"""Checkpoints kept of a session: should the newest be damaged, the one before is there. One less while another is written."""
FACTS = "zo_facts"


class Snapshots:
    """The snapshots of one session of a run."""

    def __init__(self, journal: Path, session: int) -> None:
        self.folder = journal.with_name(journal.name.removesuffix(SUFFIX) + ".snapshots")
        self.session = session

    def write(self, snapshot: Snapshot, step: int, checksum: str, kind: str) -> SnapshotEntry:
        """OSError names the file; what was there before stays whole."""
        from safetensors.torch import save_file

        name = f"session{self.session}_step{step}_{kind}.safetensors"
        path, temporary = self.folder / name, self.folder / f".{name}.part"
        try:
            self.folder.mkdir(exist_ok=True)
            save_file(snapshot.tensors, temporary, metadata={FACTS: json.dumps(snapshot.facts)})
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            share(temporary)
            os.replace(temporary, path)
            sync_folder(self.folder)
        except Exception as error:  # safetensors has its own kinds for a full disk
            temporary.unlink(missing_ok=True)
            raise OSError(f"{path}: cannot be written ({error}); earlier snapshots are intact, free space and resume") from error
        return SnapshotEntry(step, name, sha256, checksum, kind)  # type: ignore[arg-type]

    def read(self, entry: SnapshotEntry) -> Snapshot:
        """UsageError when the file is missing or is not what was written."""
        from safetensors import SafetensorError, safe_open

        from bench.api import Snapshot

        path = self.folder / entry.file
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != entry.sha256:
                raise UsageError(f"{path}: damaged, its checksum is not the one in the journal")
            with safe_open(path, framework="pt") as tensors:
                facts = json.loads(tensors.metadata()[FACTS])
                names = list(tensors.keys())
                return Snapshot({name: tensors.get_tensor(name) for name in names}, facts)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: not a snapshot ({error})") from None

    def prune(self, keep: Collection[str]) -> None:
        """Delete this session's files that are not to be kept, and what killed processes left behind."""
        for path in self.folder.glob(f"*session{self.session}_step*"):
            if path.name not in keep:
                path.unlink(missing_ok=True)
