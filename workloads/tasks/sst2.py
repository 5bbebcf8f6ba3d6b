"""SST-2 as the ZO papers run it: template, split and option words of arXiv 2305.17333's published protocol.

Sentences come from `--data`, from the hub, or, where neither is to be had, from the generated set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.errors import UsageError
from workloads.generated import EVAL, TASK, TRAIN, sentences
from workloads.models.hub import in_reach
from workloads.rows.read import read_tables
from workloads.rows.table import DataOptions, Row, Table
from workloads.rows.values import labels_of, text_of

OPTIONS = (" terrible", " great")
LABELS = ("negative", "positive")
COLUMNS = ("sentence", "label")
HUB_ID = "stanfordnlp/sst2"
TRAIN_ROWS, DEV_ROWS, EVAL_ROWS = 1000, 500, 872
Rows = list[tuple[str, int]]


def prompt(sentence: str) -> str:
    """The official template, before the option."""
    return f"{sentence.strip()} It was"


def read(
    data: str | None, seed: int, *, offline: bool = False, options: DataOptions | None = None
) -> tuple[Rows, Rows, Rows, str]:
    """(train, dev, eval) rows and where they come from. offline: do not ask the hub, use the generated set."""
    if data is not None:
        tables = read_tables(data, COLUMNS, options)
        held_out = _rows(tables.validation, options) if tables.validation else None
        return *_split(_rows(tables.train, options), held_out, seed), f"file {Path(data).name}"
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
    train, held_out = (
        Table(tuple(Row(values, HUB_ID, number) for number, values in enumerate(found[split], start=1)))
        for split in ("train", "validation")
    )
    return _rows(train), _rows(held_out)


def _rows(table: Table, options: DataOptions | None = None) -> Rows:
    """(sentence, label) pairs."""
    labels = labels_of(table, "label", LABELS, options, also={"false": 0, "true": 1})
    return [(text_of(row, "sentence"), label) for row, label in zip(table.rows, labels, strict=True)]
