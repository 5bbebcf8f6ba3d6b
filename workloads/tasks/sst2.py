"""SST-2 as the ZO papers run it: template, split and option words of arXiv 2305.17333's published protocol.

Sentences come from `--data`, from the hub, or, where neither is to be had, from the generated set.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import UsageError
from workloads.generated import EVAL, TASK, TRAIN, sentences
from workloads.models.hub import in_reach

OPTIONS = (" terrible", " great")
HUB_ID = "stanfordnlp/sst2"
TRAIN_ROWS, DEV_ROWS, EVAL_ROWS = 1000, 500, 872
READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
Rows = list[tuple[str, int]]


def prompt(sentence: str) -> str:
    """The official template, before the option."""
    return f"{sentence.strip()} It was"


def read(data: str | None, seed: int, *, offline: bool = False) -> tuple[Rows, Rows, Rows, str]:
    """(train, dev, eval) rows and where they come from. offline: do not ask the hub, use the generated set."""
    if data is not None:
        train, held_out = _from_path(Path(data))
        return *_split(train, held_out, seed), f"file {Path(data).name}"
    found = None if offline else _from_hub()
    if found is not None:
        return *_split(*found, seed), f"hub {HUB_ID}"
    train = sentences(TRAIN_ROWS + DEV_ROWS, TRAIN, TASK, seed, 1)
    return train[:TRAIN_ROWS], train[TRAIN_ROWS:], sentences(EVAL_ROWS, EVAL, TASK, seed, 2), "generated"


def _split(train: Rows, held_out: Rows | None, seed: int) -> tuple[Rows, Rows, Rows]:
    """Upstream's subset: a seeded permutation of the training rows, the first 1000 to train on, the next 500 as dev.

    Smaller files keep these proportions. Without validation rows the last fifth of the file is held out.
    """
    if held_out is None:
        cut = max(1, len(train) // 5)
        train, held_out = train[:-cut], train[-cut:]
    chosen = np.random.RandomState(seed).permutation(len(train))[: TRAIN_ROWS + DEV_ROWS]
    dev = DEV_ROWS if len(chosen) == TRAIN_ROWS + DEV_ROWS else len(chosen) // 3
    rows = [train[i] for i in chosen]
    if not rows[: len(rows) - dev]:
        raise UsageError("--data: too few rows; at least 2 training rows are needed")
    return rows[: len(rows) - dev], rows[len(rows) - dev :], held_out


def _from_hub() -> tuple[Rows, Rows] | None:
    """The data set from the hub, or from the cache; None where it is in neither."""
    try:
        import datasets
    except ImportError:
        raise UsageError("--task sst2: the package datasets is missing; install it, or give the data with --data") from None
    cached = Path(datasets.config.HF_DATASETS_CACHE, HUB_ID.replace("/", "___")).exists()
    if not cached and not in_reach():
        return None
    try:
        found = datasets.load_dataset(HUB_ID)
    except (OSError, ValueError, RuntimeError):  # out of reach after all: datasets raises any of these
        return None
    return _rows(found["train"], HUB_ID), _rows(found["validation"], HUB_ID)


def _from_path(path: Path) -> tuple[Rows, Rows | None]:
    """A file, or a folder with train.* and, if there is one, validation.*."""
    if path.is_dir():
        files = {f.stem.split("-")[0]: f for f in sorted(path.iterdir()) if f.suffix in READERS}
        if "train" not in files:
            raise UsageError(f"--data {path}: that folder has no train file ({', '.join(READERS)})")
        held_out = files.get("validation") or files.get("dev")
        return _file(files["train"]), _file(held_out) if held_out else None
    if not path.is_file():
        raise UsageError(
            f"--data {path}: no such file or folder; give a {', '.join(READERS)} file with columns sentence and label"
        )
    return _file(path), None


def _file(path: Path) -> Rows:
    if path.suffix not in READERS:
        raise UsageError(f"--data {path}: unknown kind of file {path.suffix!r}; use {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise UsageError(f"--data {path}: the file is empty")
    return _rows(_table(path), str(path))


def _table(path: Path) -> list[dict[str, Any]]:
    try:
        from datasets import Dataset
        from datasets.exceptions import DatasetGenerationError
    except ImportError:
        raise UsageError(f"--data {path}: reading it needs the package datasets; install it") from None
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # what it would print is in the error we raise
    with tempfile.TemporaryDirectory() as cache:
        options: dict[str, Any] = {"keep_in_memory": True, "cache_dir": cache}
        try:
            if path.suffix == ".parquet":
                return Dataset.from_parquet(str(path), **options).to_list()
            if path.suffix in (".json", ".jsonl"):
                return Dataset.from_json(str(path), **options).to_list()
            separator = "\t" if path.suffix == ".tsv" else ","
            return Dataset.from_csv(str(path), sep=separator, keep_default_na=False, **options).to_list()
        except (DatasetGenerationError, ValueError, TypeError, OSError, LookupError) as error:
            reason = str(error.__cause__ or error).splitlines() or [type(error).__name__]
            if "corresponds to no data" in reason[0]:
                raise UsageError(f"--data {path}: the file is empty") from None
            raise UsageError(f"--data {path}: cannot be read as {path.suffix}: {reason[0]}") from None


def _rows(records: Iterable[dict[str, Any]], where: str) -> Rows:
    """Checked (sentence, label) pairs; labels 0 or 1, as numbers or digits."""
    found: Rows = []
    for number, record in enumerate(records, start=1):
        missing = [column for column in ("sentence", "label") if column not in record]
        if missing:
            raise UsageError(f"--data {where}: no column {missing[0]!r}; found {', '.join(map(repr, record))}")
        sentence, label = record["sentence"], record["label"]
        if not isinstance(sentence, str) or not sentence.strip():
            raise UsageError(f"--data {where}: row {number}: the sentence is empty or no text")
        if isinstance(label, bool) or str(label) not in ("0", "1"):
            raise UsageError(f"--data {where}: row {number}: label {label!r}; expected 0 (negative) or 1 (positive)")
        found.append((sentence, int(label)))
    if not found:
        raise UsageError(f"--data {where}: the file is empty")
    return found
