"""The rows of a step as flat host arrays: which tokens run under which adapter, and which log-probs are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from bench.data import Batch, Example

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Rows:
    """A ragged batch. Rows of one probe stand together, and within it the options of one example.

    tokens      [total] ids, row after row
    lengths     [rows]
    states      [rows] index of the probe each row belongs to
    wanted      [positions] index into `tokens` of the position whose next token is scored
    targets     [positions] the token scored there; empty when all options are read from one position
    per_row     [rows] how many scored positions each row has
    option_ids  [examples, options] token ids when every option is one token read from the prompt's last position, else None
    """

    tokens: Ints
    lengths: Ints
    states: Ints
    wanted: Ints
    targets: Ints
    per_row: Ints
    option_ids: Ints | None
    examples: int
    options: int

    @property
    def probes(self) -> int:
        return int(self.states[-1]) + 1


def shared_rows(batch: Batch, probes: int) -> Rows:
    """Each prompt once for each probe; its one-token options are read from its last position."""
    lengths = np.array([len(e.prompt) for e in batch] * probes, dtype=np.int32)
    return Rows(
        tokens=np.fromiter(chain.from_iterable(e.prompt for _ in range(probes) for e in batch), np.int32),
        lengths=lengths,
        states=np.repeat(np.arange(probes, dtype=np.int32), len(batch)),
        wanted=np.cumsum(lengths, dtype=np.int32) - 1,
        targets=np.zeros(0, dtype=np.int32),
        per_row=np.ones(len(lengths), dtype=np.int32),
        option_ids=np.array([[option[0] for option in e.options] for e in batch], dtype=np.int32),
        examples=len(batch),
        options=len(batch[0].options),
    )


def full_rows(batch: Batch, probes: int) -> Rows:
    """One row per option, prompt and option together, as upstream and the paper score it."""
    rows, scored = zip(*(row for e in batch for row in e.rows()), strict=True)
    ends = np.cumsum([len(row) for row in rows])
    wanted = [end - 1 + j for end, count in zip(ends, scored, strict=True) for j in range(-count, 0)]
    total = int(ends[-1])
    return Rows(
        tokens=np.fromiter(chain.from_iterable(rows * probes), np.int32),
        lengths=np.array([len(r) for r in rows] * probes, dtype=np.int32),
        states=np.repeat(np.arange(probes, dtype=np.int32), len(rows)),
        wanted=np.concatenate([np.array(wanted, dtype=np.int32) + p * total for p in range(probes)]).astype(np.int32),
        targets=np.array([t for row, count in zip(rows, scored, strict=True) for t in row[-count:]] * probes, dtype=np.int32),
        per_row=np.array(scored * probes, dtype=np.int32),
        option_ids=None,
        examples=len(batch),
        options=len(batch[0].options),
    )


def synthetic(lengths: Ints, probes: int) -> Rows:
    """Rows of given lengths, equally many of each probe, that nothing is read from: to try a pass out. Token 0 throughout."""
    states = np.arange(len(lengths), dtype=np.int32) * probes // len(lengths)
    nothing = np.zeros(0, dtype=np.int32)
    tokens = np.zeros(int(lengths.sum()), dtype=np.int32)
    return Rows(tokens, lengths, states.astype(np.int32), nothing, nothing, nothing, None, len(lengths) // probes, 1)


def one_token(batch: Batch) -> bool:
    """Whether the shared form is exact for this batch: every option is a single token."""
    return all(_single(e) for e in batch)


def _single(example: Example) -> bool:
    return all(len(option) == 1 for option in example.options)
