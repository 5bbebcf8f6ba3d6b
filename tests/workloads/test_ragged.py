"""The tree of token prefixes against a count and a reading of its own: plain sets and plain loops."""

from __future__ import annotations

import random

import pytest

from bench.data import Batch, Example
from workloads.tasks.ragged import Rows, full_rows, synthetic, tree_rows


def nodes(batch: Batch) -> set[tuple[int, ...]]:
    """Every distinct prefix that has to be run: all of a row but an option's last token."""
    return {row[:end] for e in batch for row, _ in e.rows() for end in range(1, len(row))}


def whole(rows: Rows) -> list[list[int]]:
    """Each row from its first token, what its parents have run included."""
    found: list[list[int]] = []
    at = 0
    for length, prior, parent in zip(rows.lengths, rows.prior, rows.parents, strict=True):
        before = found[parent][:prior] if parent >= 0 else []
        assert len(before) == prior
        found.append([*before, *rows.tokens[at : at + length].tolist()])
        at += length
    return found


def contexts(rows: Rows) -> list[tuple[tuple[int, ...], int]]:
    """For every scored token what stands before it, and the token."""
    runs, starts = whole(rows), (rows.lengths.cumsum() - rows.lengths).tolist()
    found = []
    for index, target in zip(rows.at.tolist(), rows.targets.tolist(), strict=True):
        token = int(rows.wanted[index])
        row = max(r for r, start in enumerate(starts) if start <= token)
        end = int(rows.prior[row]) + token - starts[row] + 1
        found.append((tuple(runs[row][:end]), target))
    return found


def truth(batch: Batch) -> list[tuple[tuple[int, ...], int]]:
    return [(row[:i], row[i]) for e in batch for row, count in e.rows() for i in range(len(row) - count, len(row))]


def made_up(seed: int, demonstrations: int = 0) -> list[Example]:
    """Prompts of 1 to 40 tokens over few words, two to four options of 1 to 6 tokens, some beginning alike."""
    draw = random.Random(seed)

    def words(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3) for _ in range(draw.randint(least, most)))

    common = (9, *words(demonstrations, demonstrations))
    found = []
    for _ in range(draw.randint(1, 8)):
        options = tuple(words(1, 6) for _ in range(draw.randint(2, 4)))
        found.append(Example(common + words(0, 40), options, 0))
    return found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("demonstrations", [0, 50])
def test_with_blocks_of_one_token_every_node_is_run_once(seed: int, demonstrations: int) -> None:
    batch = made_up(seed, demonstrations)
    rows = tree_rows(batch, 1)
    assert len(rows.tokens) == len(nodes(batch))
    assert contexts(rows) == truth(batch)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("block", [4, 16])
def test_with_larger_blocks_only_partly_filled_ones_are_run_again(seed: int, block: int) -> None:
    batch = made_up(seed, 50)
    rows, leaves = tree_rows(batch, 3, block), len(tree_rows(batch, 1).lengths)
    assert len(nodes(batch)) * 3 <= len(rows.tokens) <= 3 * (len(nodes(batch)) + (leaves - 1) * (block - 1))
    assert all(prior % block == 0 for prior in rows.prior)
    assert contexts(rows) == truth(batch) * 3


@pytest.mark.parametrize("length", [15, 16, 17])
def test_a_prompt_that_ends_at_a_blocks_border(length: int) -> None:
    prompt = tuple(range(100, 100 + length))
    batch = [Example(prompt, ((1, 2), (3, 4)), 0)]
    rows = tree_rows(batch, 1, 16)
    again = length % 16 if length >= 16 else length
    assert len(rows.tokens) == length + 1 + again + 1
    assert contexts(rows) == truth(batch)


def test_one_token_options_cost_no_token() -> None:
    batch = [Example((0, 5, 6), ((7,), (8,)), 1), Example((0, 5), ((7,), (8,)), 1), Example((0, 9), ((7,), (8,), (9,)), 1)]
    rows = tree_rows(batch, 2)
    assert len(rows.tokens) == 2 * 4  # 0, 5, 6 and 9: the second prompt is the beginning of the first
    assert rows.options.tolist() == [2, 2, 3]
    assert contexts(rows) == truth(batch) * 2


def test_full_rows_run_every_row_whole() -> None:
    batch = made_up(3)
    rows = full_rows(batch, 2)
    assert whole(rows) == [list(row) for e in batch for row, _ in e.rows()] * 2
    assert contexts(rows) == truth(batch) * 2


def test_synthetic_rows_are_of_the_probes_asked_for() -> None:
    rows = synthetic(full_rows(made_up(1), 2).lengths, 2)
    assert rows.probes == 2 and set(rows.parents.tolist()) == {-1}
