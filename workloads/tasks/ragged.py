"""The rows of a step as flat host arrays: which tokens run under which adapter, and which log-probs are wanted.

The rows that a probe has to score form a tree of token prefixes: what all prompts begin with (demonstrations), prompts, options.
`tree_rows` runs every distinct prefix once, `full_rows` every option's row from its first token, as upstream and the paper do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from bench.data import Batch, Objective

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Rows:
    """A ragged batch. Rows of one probe stand together. An option's last token is never run where its row is a tree's.

    tokens      [total] ids that are run, row after row
    lengths     [rows] how many of them each row has
    states      [rows] index of the probe each row belongs to
    prior       [rows] tokens before a row's own that its parent has run, or the parent's parents: whole blocks
    parents     [rows] an earlier row; -1 where prior is 0
    wanted      [positions] index into `tokens` of the positions whose next token is scored
    at          [scored] index into `wanted` for each scored token, option after option, example after example
    targets     [scored] the tokens scored there
    per_option  [options] how many scored tokens each option of each probe has
    options     [examples] how many options each example has
    """

    tokens: Ints
    lengths: Ints
    states: Ints
    prior: Ints
    parents: Ints
    wanted: Ints
    at: Ints
    targets: Ints
    per_option: Ints
    options: Ints

    @property
    def probes(self) -> int:
        return int(self.states[-1]) + 1

    @property
    def examples(self) -> int:
        return len(self.options)

    def positions(self) -> Ints:
        """Position of each token that is run within its whole row [total]."""
        starts = np.cumsum(self.lengths) - self.lengths
        return (np.arange(len(self.tokens)) - np.repeat(starts - self.prior, self.lengths)).astype(np.int32)

    @cached_property
    def seen(self) -> list[Ints]:
        """For each row the tokens that its last one sees, index into `tokens`, in order: what it goes on from, then its own."""
        ends, found = np.cumsum(self.lengths), list[Ints]()
        for row, (end, length) in enumerate(zip(ends.tolist(), self.lengths.tolist(), strict=True)):
            own = np.arange(end - length, end, dtype=np.int32)
            before = self.prior[row]
            found.append(np.concatenate([found[self.parents[row]][:before], own]) if before else own)
        return found

    def repeated(self, probes: int) -> Rows:
        """The rows of one probe for several."""
        if probes == 1:
            return self

        def tile(array: Ints, step: int = 0) -> Ints:
            return np.concatenate([array + probe * step for probe in range(probes)], dtype=np.int32)

        parents = np.concatenate([np.where(self.parents < 0, -1, self.parents + p * len(self.lengths)) for p in range(probes)])
        return replace(
            self,
            **{name: tile(getattr(self, name)) for name in ("tokens", "lengths", "prior", "targets", "per_option")},
            states=tile(self.states, 1),
            parents=parents.astype(np.int32),
            wanted=tile(self.wanted, len(self.tokens)),
            at=tile(self.at, len(self.wanted)),
        )


def tree_rows(batch: Batch, probes: int, block: int = 1) -> Rows:
    """Each distinct prefix once for each probe, in whole blocks of keys and values: of the last, partly filled block that two
    rows have in common the tokens are run again. With block 1 the tokens run are the nodes of the tree.

    In sorted order the row before a row is the one that it has most in common with, and what is a prefix of another row is read
    from that one.
    """
    runs = [(row[:-1], count) for e in batch for row, count in e.rows()]
    distinct = sorted({run for run, _ in runs})
    leaves: list[tuple[int, ...]] = []
    leaf_of: dict[tuple[int, ...], int] = {}
    for run, after in [*pairwise(distinct), (distinct[-1], ())]:
        leaf_of[run] = len(leaves)
        if after[: len(run)] != run:
            leaves.append(run)
    prior = [0, *(_common(a, b) // block * block for a, b in pairwise(leaves))]
    lengths = [len(leaf) - before for leaf, before in zip(leaves, prior, strict=True)]
    starts = np.cumsum([0, *lengths]).tolist()
    wanted: dict[int, int] = {}
    at, targets = [], []
    for (run, count), row in zip(runs, (row for e in batch for row, _ in e.rows()), strict=True):
        for position in range(len(run) - count, len(run)):
            leaf = leaf_of[run]
            while position < prior[leaf]:  # run by the row before, or the one before that
                leaf -= 1
            token = starts[leaf] + position - prior[leaf]
            at.append(wanted.setdefault(token, len(wanted)))
            targets.append(row[position + 1])
    return Rows(
        tokens=_flat(leaf[before:] for leaf, before in zip(leaves, prior, strict=True)),
        lengths=_ints(lengths),
        states=np.zeros(len(leaves), dtype=np.int32),
        prior=_ints(prior),
        parents=_ints([index - 1 if before else -1 for index, before in enumerate(prior)]),
        wanted=_ints(list(wanted)),
        at=_ints(at),
        targets=_ints(targets),
        per_option=_ints([count for _, count in runs]),
        options=_ints([len(e.options) for e in batch]),
    ).repeated(probes)


def full_rows(batch: Batch, probes: int) -> Rows:
    """One row per option, prompt and option together."""
    rows, scored = zip(*(row for e in batch for row in e.rows()), strict=True)
    ends = np.cumsum([len(row) for row in rows])
    wanted = [end - 1 + j for end, count in zip(ends, scored, strict=True) for j in range(-count, 0)]
    return Rows(
        tokens=_flat(rows),
        lengths=_ints([len(row) for row in rows]),
        states=np.zeros(len(rows), dtype=np.int32),
        prior=np.zeros(len(rows), dtype=np.int32),
        parents=np.full(len(rows), -1, dtype=np.int32),
        wanted=_ints(wanted),
        at=np.arange(len(wanted), dtype=np.int32),
        targets=_flat(row[-count:] for row, count in zip(rows, scored, strict=True)),
        per_option=_ints(scored),
        options=_ints([len(e.options) for e in batch]),
    ).repeated(probes)


def full_tokens(batch: Batch) -> int:
    """Tokens of `full_rows` for one probe."""
    return sum(len(row) for e in batch for row, _ in e.rows())


def tree_tokens(batch: Batch, block: int, enough: int) -> int:
    """Tokens of `tree_rows` for one probe; what they can be at most where that is not above `enough`, for it is quickly told."""
    most = sum(len(e.prompt) + sum(len(o) + block - 2 for o in e.options if len(o) > 1) for e in batch)
    return most if most <= enough else len(tree_rows(batch, 1, block).tokens)


def synthetic(lengths: Ints, probes: int) -> Rows:
    """Rows of given lengths, equally many of each probe, that nothing is read from: to try a pass out. Token 0 throughout."""
    states = np.arange(len(lengths), dtype=np.int32) * probes // len(lengths)
    nothing, none = np.zeros(0, dtype=np.int32), np.zeros(len(lengths), dtype=np.int32)
    tokens = np.zeros(int(lengths.sum()), dtype=np.int32)
    return Rows(tokens, lengths, states.astype(np.int32), none, none - 1, nothing, nothing, nothing, nothing, nothing)


def labels_only(batch: Batch, objective: Objective) -> bool:
    """Whether the loss needs no more than the options' own rows of the head: the normaliser cancels in a cross-entropy."""
    return objective == "classification" and one_token(batch)


def one_token(batch: Batch) -> bool:
    """Whether every option is a single token, all of an example read from its prompt's last position."""
    return all(len(option) == 1 for e in batch for option in e.options)


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many tokens two rows begin with alike."""
    size = min(len(a), len(b))
    apart = np.nonzero(np.array(a[:size]) != np.array(b[:size]))[0]
    return int(apart[0]) if len(apart) else size


def _flat(rows: Iterable[Sequence[int]]) -> Ints:
    return np.fromiter(chain.from_iterable(rows), np.int32)


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int32)
