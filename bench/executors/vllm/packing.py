"""A ragged batch as the model runner's buffers hold it: host arrays, ready to be copied to the device.

Tokens stand row after row. In a spaced batch each probe begins at its own fixed offset, whatever the batch: then the tokens of a
probe are a constant of a recorded pass. The gap after a probe is a row of its own that attends to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from workloads.tasks.ragged import Ints, Rows


class Reach(NamedTuple):
    """What to expect of one probe's share of a batch: rows (at most), tokens, and whether no row goes on from another."""

    rows: int
    fewest: int
    most: int
    whole: bool


@dataclass(frozen=True)
class Packed:
    """rows: of the pass, empty ones and gaps included. What stands in a gap or behind the last token is never read.

    batch       what was laid out
    tokens      [used] ids
    positions   [used] position of each token within its whole row
    slots       [padded] where each token's keys and values go; -1: nowhere
    starts      [rows + 1] first token of each row
    lengths     [rows] keys that each row attends to
    blocks      [rows, most] blocks that hold them
    share       tokens that a probe has room for, its gap included; 0 where the probes stand end to end
    """

    batch: Rows
    rows: int
    probes: int
    total: int
    tokens: Ints
    positions: Ints
    slots: Ints
    starts: Ints
    lengths: Ints
    blocks: Ints
    share: int

    def first(self) -> Ints:
        """[padded] The first token of each token's row; what stands behind the last row is a row of its own each."""
        found = np.arange(len(self.slots), dtype=np.int32)
        found[: self.starts[-1]] = np.repeat(self.starts[:-1], np.diff(self.starts))
        return found

    def places(self) -> Ints:
        """[total] Where each of the batch's own tokens stands in the pass."""
        at = np.arange(self.total, dtype=np.int32)
        if not self.share or self.probes == 1:
            return at
        return at + np.repeat(self.batch.states, self.batch.lengths) * (self.share - self.total // self.probes)

    def real(self, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden states [total, hidden] of the batch's own tokens, in its order, from those of the whole pass."""
        if not self.share or self.probes == 1:
            return hidden[: self.total]
        own = hidden[: self.probes * self.share].view(self.probes, self.share, -1)[:, : self.total // self.probes]
        return own.flatten(0, 1)


def pack(rows: Rows, n: int, padded: int, block: int, share: int = 0) -> Packed:
    """Lay out a batch for a pass of n rows and `padded` tokens. share: fixed distance of the probes' offsets, 0 for end to end;
    a spaced pass has a row more for each gap between two probes."""
    probes, total, blocks = rows.probes, len(rows.tokens), _blocks(rows, block)
    if not share or probes == 1:
        pad = n - len(rows.lengths)
        own, lengths = np.pad(rows.lengths, (0, pad)), np.pad(rows.lengths + rows.prior, (0, pad))
        tokens, positions, blocks = rows.tokens, rows.positions(), np.pad(blocks, ((0, pad), (0, 0)))
    else:
        n, each, gap = n + probes - 1, total // probes, share - total // probes
        row_at = np.arange(len(rows.lengths)) + rows.states
        token_at = np.arange(total) + np.repeat(rows.states, rows.lengths) * gap
        after = len(rows.lengths) // probes
        own, lengths = _spread(rows.lengths, row_at, n), _spread(rows.lengths + rows.prior, row_at, n)
        own[[probe * (after + 1) + after for probe in range(probes - 1)]] = gap
        used = (probes - 1) * share + each
        tokens, positions = _spread(rows.tokens, token_at, used), _spread(rows.positions(), token_at, used)
        blocks = _spread(blocks, row_at, n)
    starts = np.concatenate([[0], np.cumsum(own)]).astype(np.int32)
    row_of = np.repeat(np.arange(n), own)
    places = blocks[row_of, positions // block] * block + positions % block
    places[lengths[row_of] == 0] = -1
    slots = np.pad(places, (0, padded - len(places)), constant_values=-1).astype(np.int32)
    return Packed(rows, n, probes, total, tokens, positions, slots, starts, lengths.astype(np.int32), blocks, share)


def _spread(values: Ints, at: Ints, size: int) -> Ints:
    """Zeros but for the values at their places along the first axis."""
    found = np.zeros((size, *values.shape[1:]), dtype=np.int32)
    found[at] = values
    return found


def _blocks(rows: Rows, block: int) -> Ints:
    """Where each row keeps its keys and values [rows, blocks]: it begins with its parent's blocks, which the same layer has
    written by the time anything attends to them."""
    taken, needed = rows.prior // block, -(-(rows.lengths + rows.prior) // block)
    ends = np.cumsum(needed - taken)
    at = np.arange(max(1, int(needed.max())))
    own = (at >= taken[:, None]) & (at < needed[:, None])
    blocks = np.where(own, 1 + (ends - needed)[:, None] + at, 0).astype(np.int32)  # block 0 is vLLM's null block
    for row in np.flatnonzero(rows.prior):  # parents come before their children
        blocks[row, : taken[row]] = blocks[rows.parents[row], : taken[row]]
    return blocks
