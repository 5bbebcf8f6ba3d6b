"""Where generated models, tokenizers and measurements are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where generated models, tokenizers and measured ceilings are kept: $ZO_BENCH_CACHE, else the user's cache folder."""
    chosen = os.environ.get("ZO_BENCH_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zo-bench"
