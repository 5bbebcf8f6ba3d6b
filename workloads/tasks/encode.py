"""Prompt and options as token ids, as the published protocol has them: encoded together, an option being what it adds.

An option on its own is often other tokens than the same option after a prompt (SentencePiece puts a mark for a space before it),
so it is never encoded alone. Source: arXiv 2305.17333's and 2410.07698's published code, which takes an option's length as the
difference between the row's and the prompt's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from bench.errors import UsageError

Encode = Callable[[str], tuple[int, ...]]
"""A text to its ids: opened as the tokenizer opens every text (BOS or not), closed by nothing."""


@dataclass(frozen=True)
class Encoded:
    """The rows of one example: `prompt` and an option together are what encoding both texts together gives.

    prompt   what all rows begin with, before anything that is scored; the prompt's own ids, unless the tokenizer joins across
    options  the rest of each row
    scored   how many of each option's last ids are scored; empty: all of them
    joined   whether a token reaches across the border, so that the prompt's own ids do not begin every row
    """

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    scored: tuple[int, ...] = ()
    joined: bool = False


LONG, MARGIN = 200, 40
"""Characters of a prompt whose beginning is worth encoding once, and how many of its last ones are encoded with every option."""
BORDER = re.compile(r"(?<=[a-z])(?= [a-z])")
"""Between two words, where every tokenizer that cuts texts into words first makes a cut."""


def encode_options(encode: Encode, prompt: str, options: Sequence[str], *, by_words: bool = False) -> Encoded:
    """The rows of a prompt and each of the texts that may follow it. by_words: the tokenizer encodes every word by itself.

    Where the tokenizer joins prompt and option, as many last tokens are scored as the row has more than the prompt (upstream's
    rule), and at least the last one, which holds the option. UsageError where nothing stands before what is scored.
    """
    alone, *rows = _encode_all(encode, prompt, ["", *options], by_words)
    scored = [max(1, len(row) - len(alone)) for row in rows]
    contexts = [row[: len(row) - count] for row, count in zip(rows, scored, strict=True)]
    if not all(contexts):
        raise UsageError(f"--task: the prompt {prompt!r} is no token with this tokenizer; give a prompt with text of its own")
    shared = _common(contexts)
    rest = tuple(row[len(shared) :] for row in rows)
    whole = all(len(option) == count for option, count in zip(rest, scored, strict=True))
    return Encoded(shared, rest, () if whole else tuple(scored), joined=any(context != alone for context in contexts))


def _encode_all(encode: Encode, prompt: str, endings: Sequence[str], by_words: bool) -> list[tuple[int, ...]]:
    """The prompt with each ending. Word by word, the beginning of a long prompt is encoded once for all of them, provided that
    its ids and those of the rest are together those of the whole."""
    borders = [found.start() for found in BORDER.finditer(prompt, 0, len(prompt) - MARGIN)] if by_words else []
    if not borders or borders[-1] < LONG:
        return [encode(prompt + ending) for ending in endings]
    opening, rest = len(encode("")), prompt[borders[-1] :]
    whole, tails = encode(prompt + endings[0]), [encode(rest + ending)[opening:] for ending in endings]
    beginning = whole[: len(whole) - len(tails[0])]
    if beginning + tails[0] != whole:
        return [encode(prompt + ending) for ending in endings]
    return [beginning + tail for tail in tails]


def _common(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all of them begin with: what the first and the last in order do."""
    low, high = min(sequences), max(sequences)
    return low[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))]


def joined_warning(joined: int, rows: int) -> str:
    return (
        f"the tokenizer joins the end of the prompt and an option into other tokens in {joined} of {rows} examples: "
        "the last tokens of a row are scored, as many as it has more than its prompt, which is upstream's rule"
    )
