"""Draws one core step, in the published loop and on vLLM: `python docs/step.py` writes docs/step.svg.

The batch is drawn small (6 prompts); the counts below it are those of a real one, `counters` of `run --model opt-tiny`.
"""

from __future__ import annotations

from drawing import FAINT, box, page, path, save, text

LENGTHS = (7, 13, 5, 9, 16, 8)
"""Tokens of the prompts that are drawn."""
CELL, GAP = 9, 11
PLUS, MINUS, PAD, WEIGHTS, REWRITE = "#2b6cb0", "#dd6b20", "#e4e7eb", "#cbd2d9", "#e12d39"
LEFT, RIGHT, WIDTH, HEIGHT = 24, 500, 954, 482


def token_row(x: float, y: float, tokens: int, padding: int, colour: str) -> list[str]:
    fills = [PAD] * padding + [colour] * tokens
    return [box(x + GAP * i, y, CELL, CELL, fill, radius=1) for i, fill in enumerate(fills)]


def rewrite(y: float, number: int, what: str) -> list[str]:
    shapes = [box(LEFT, y, 430, 24, "#fde8e8", stroke=REWRITE)]
    return [*shapes, text(LEFT + 10, y + 17, f"rewrite {number}"), text(LEFT + 90, y + 17, what)]


def padded(y: float, colour: str, sign: str) -> list[str]:
    """Every prompt twice, once for each answer, up to the longest row."""
    longest, shapes = max(LENGTHS) + 1, []
    for place, tokens in enumerate(length + 1 for length in LENGTHS for _ in range(2)):
        shapes += token_row(LEFT, y + GAP * place, tokens, longest - tokens, colour)
    at = LEFT + GAP * longest + 16
    return [
        *shapes,
        text(at, y + 52, f"forward at θ {sign} εZ gives L{sign}", bold=True),
        text(at, y + 72, "a row for each answer, padded", colour=FAINT),
        text(at, y + 90, "to the longest (grey)", colour=FAINT),
    ]


def published() -> list[str]:
    grid = 2 * len(LENGTHS) * GAP
    shapes, y = [text(LEFT, 30, "A step of the published loop", size=16, bold=True)], 46.0
    shapes += rewrite(y, 1, "W ← W + εZ")
    shapes += padded(y + 33, PLUS, "+")
    y += 33 + grid + 8
    shapes += rewrite(y, 2, "W ← W - 2εZ")
    shapes += padded(y + 33, MINUS, "-")
    y += 33 + grid + 8
    shapes += rewrite(y, 3, "W ← W + εZ")
    shapes += rewrite(y + 30, 4, "W ← W - learning rate · g · Z")
    return shapes


def resident() -> list[str]:
    shapes = [text(RIGHT, 30, "The same step on vLLM", size=16, bold=True)]
    shapes += [box(RIGHT, 46, 430, 24, WEIGHTS), text(RIGHT + 10, 63, "W stays as it is")]
    for place, (colour, sign) in enumerate(((PLUS, "+"), (MINUS, "-"))):
        x = RIGHT + 222 * place
        shapes += [box(x, 84, 208, 44, "white", stroke=colour), text(x + 10, 102, f"adapter slot {place + 1}", bold=True)]
        shapes += [text(x + 10, 120, f"collected updates {sign} εZ", colour=FAINT)]
    shapes += [path(f"M{RIGHT + 104 + 222 * p},128 V150", arrow=True) for p in range(2)]
    for place, colour in enumerate((PLUS, MINUS)):
        for row, length in enumerate(LENGTHS):
            shapes += token_row(RIGHT + 222 * place, 158 + GAP * row, length, 0, colour)
    end = 158 + GAP * len(LENGTHS)
    shapes += [text(RIGHT, end + 22, "one forward over the rows of both states gives L+ and L-", bold=True)]
    shapes += [text(RIGHT, end + 40, "no padding; each prompt once, answers read at its last token", colour=FAINT)]
    shapes += [text(RIGHT, end + 58, "(kv=shared; kv=recompute has a row for each answer)", colour=FAINT)]
    y = end + 76
    shapes += [box(RIGHT, y, 430, 44, "#e3f8e8", stroke="#18981d"), text(RIGHT + 10, y + 18, "update of the small factor alone")]
    shapes += [text(RIGHT + 10, y + 36, "collected updates ← collected updates - learning rate · g · Z", colour=FAINT)]
    shapes += [text(RIGHT, y + 64, "Every 50th step they are folded into W: one rewrite.", colour=FAINT)]
    return shapes


def counts() -> list[str]:
    rows = (
        ("", "published", "kv=recompute", "kv=shared"),
        ("forwards", "2", "1", "1"),
        ("tokens scored", "4,096", "932", "434"),
        ("rewrites of W", "4", "1 in 50 steps", "1 in 50 steps"),
    )
    at, shapes = (RIGHT, RIGHT + 180, RIGHT + 305, RIGHT + 430), []
    for line, row in enumerate(rows):
        for place, words in enumerate(row):
            anchor = "end" if place else "start"
            shapes.append(text(at[place], 410 + 19 * line, words, anchor=anchor, bold=not line, size=12))
    return [text(RIGHT, 386, "Batch of 16, SST-2's lengths; g = (L+ - L-) / 2ε", size=12, colour=FAINT), *shapes]


def draw() -> str:
    shapes = [*published(), *resident(), *counts(), path(f"M476,20 V{HEIGHT - 20}", colour="#cbd2d9")]
    return page(WIDTH, HEIGHT, "One step of zeroth-order fine-tuning, in the published loop and on vLLM", shapes)


if __name__ == "__main__":
    save(__file__, draw())
