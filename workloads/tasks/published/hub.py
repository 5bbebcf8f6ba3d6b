"""Data sets of the hub: where it is out of reach and nothing is cached, there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from workloads.models.hub import in_reach
from workloads.rows.table import Row, Table


@dataclass(frozen=True)
class Hub:
    """A data set's id and, if it has several, its configuration."""

    id: str
    config: str | None = None

    def __str__(self) -> str:
        return f"{self.id} {self.config}" if self.config else self.id

    def load(self) -> dict[str, Any] | None:
        """The splits train and validation as `datasets.Dataset`; None where they cannot be had."""
        try:
            import datasets
        except ImportError:
            raise UsageError(f"{self}: the package datasets is missing; install it, or give the data with --data") from None
        cached = Path(datasets.config.HF_DATASETS_CACHE, self.id.replace("/", "___")).exists()
        if not cached and not in_reach():
            return None
        try:
            found = datasets.load_dataset(self.id, self.config)
        except (OSError, ValueError, RuntimeError):  # out of reach after all: datasets raises any of these
            return None
        return {"train": found["train"], "validation": found["validation"]}

    def table(self, split: Any, chosen: Sequence[int]) -> Table:
        """Some rows of a split."""
        rows = split.select(chosen).to_list()
        names = {name: tuple(f.names) for name, f in split.features.items() if type(f).__name__ == "ClassLabel"}
        return Table(tuple(Row(values, f"hub {self}", at + 1) for at, values in zip(chosen, rows, strict=True)), (), names)
