"""What tells one model from another wherever its folder lies: a moved folder is recognised, another model is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from bench.data import ModelSource
from workloads.models.table import WEIGHT_FILES

PIECE, PIECES = 1 << 20, 64
UNIMPORTANT = ("_name_or_path", "transformers_version")


def model_digest(source: ModelSource) -> str:
    """Of the configuration and, where they are used, of the files of weights: names, sizes, and 64 pieces of 1 MiB of each.

    Reading all of 26 GB would take longer than many a run; another checkpoint of the same shape differs in every piece.
    """
    folder = Path(source.path)
    config = json.loads((folder / "config.json").read_text())
    digest = hashlib.sha256(json.dumps({k: v for k, v in config.items() if k not in UNIMPORTANT}, sort_keys=True).encode())
    patterns = WEIGHT_FILES if source.weights == "pretrained" else ()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with open(path, "rb") as file:
            for start in range(0, size, max(PIECE, size // PIECES)):
                file.seek(start)
                digest.update(file.read(PIECE))
    return digest.hexdigest()[:16]
