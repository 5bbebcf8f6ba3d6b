"""A batch in the runner's buffers: what each row attends to is its own, wherever a probe's tokens lie."""

import numpy as np
import pytest
import torch

from bench.data import Example
from bench.executors.vllm.lora import segments, segments_of
from bench.executors.vllm.packing import pack
from workloads.tasks.ragged import full_rows, tree_rows

BLOCK = 4
SHORT = (
    Example((1, 2, 3, 4, 5, 6), ((7, 8), (9,)), 0),
    Example((1, 2, 3, 4, 5, 9), ((7,), (8, 7, 6)), 1),
    Example((4,), ((2,), (3,)), 0),
)
ROWS = {"full": full_rows, "tree": lambda batch, probes: tree_rows(batch, probes, BLOCK)}


def attended(packed, row):
    """The tokens that a row attends to, read from the places of its keys."""
    held = {int(slot): int(token) for slot, token in zip(packed.slots, packed.tokens, strict=False) if slot >= 0}
    at = np.arange(packed.lengths[row])
    return [held[int(slot)] for slot in packed.blocks[row, at // BLOCK] * BLOCK + at % BLOCK]


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("probes", [1, 2, 3])
@pytest.mark.parametrize("spaced", [False, True])
def test_rows_find_their_own_keys_at_any_offset(form, probes, spaced):
    rows = ROWS[form](SHORT, probes)
    each, spare = len(rows.tokens) // probes, 5 * probes
    share = each + 3 if spaced else 0
    packed = pack(rows, len(rows.lengths) + spare, probes * (each + 3) + 2, BLOCK, share)
    assert packed.rows == len(rows.lengths) + spare + (probes - 1 if spaced else 0) == len(packed.starts) - 1
    own = [row for row in range(packed.rows) if packed.lengths[row]]
    ends = np.cumsum(rows.lengths)
    whole = {}
    for row, (at, end, length) in enumerate(zip(own, ends, rows.lengths, strict=True)):
        before = whole[rows.parents[row]][: rows.prior[row]] if rows.prior[row] else []
        whole[row] = [*before, *rows.tokens[end - length : end]]
        assert attended(packed, at) == whole[row]
        start = packed.starts[at]
        assert packed.starts[at + 1] - start == length
        assert packed.positions[start : start + length].tolist() == list(range(rows.prior[row], len(whole[row])))
    places = packed.slots[packed.slots >= 0]
    assert len(set(places)) == len(places) == len(rows.tokens) and places.min() >= BLOCK  # block 0 is vLLM's
    assert all(packed.starts[row + 1] - packed.starts[row] in (0, 3) for row in set(range(packed.rows)) - set(own))
    if spaced:
        first = [
            row for row, state in zip(own, rows.states, strict=True) if row == own[0] or state != rows.states[own.index(row) - 1]
        ]
        assert [packed.starts[row] for row in first] == [probe * share for probe in range(probes)]
    hidden = torch.zeros(len(packed.slots), 1)
    hidden[: len(packed.tokens), 0] = torch.from_numpy(packed.tokens).float()
    assert packed.real(hidden)[:, 0].tolist() == rows.tokens.tolist()


def test_segments_are_the_tokens_of_each_probe():
    rows = full_rows(SHORT, 3)
    for slots in ([2, 0, 1], [1, -1, 0], [-1, -1, -1]):
        assert segments(rows, slots) == segments_of(np.repeat(np.array(slots)[rows.states], rows.lengths).tolist())
