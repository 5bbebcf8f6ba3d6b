"""Draws three scheduling rounds of a server that trains: `python docs/round.py` writes docs/round.svg."""

from __future__ import annotations

from drawing import FAINT, box, page, path, save, text

USER, DECODE, PROBE, HELD, STILL = "#2b6cb0", "#90cdf4", "#dd6b20", "#fbd8b5", "#e4e7eb"
CELL, GAP, TOP, WIDTH, HEIGHT = 13, 15, 92, 954, 392
ROUNDS = (
    ("users have come: no probe", 3, 9, 0, 12, 0),
    ("users decode: what the bound allows", 5, 0, 6, 6, 10),
    ("nobody there for ten seconds: all that fits", 0, 0, 12, 0, 12),
)
"""What is said of a round; tokens of decoding users, of a user's prompt, of probes, and of probes that are held back; twelfths of
the round that a process beside it runs, as a core is idle."""


def cells(x: float, y: float, count: int, fill: str) -> list[str]:
    return [box(x + GAP * (i % 12), y + GAP * (i // 12), CELL, CELL, fill, radius=1) for i in range(count)]


def scheduled(x: float, said: str, decode: int, prompt: int, probes: int, held: int, beside: int) -> list[str]:
    shapes = [text(x, TOP - 14, said, bold=True, size=12), box(x - 8, TOP, 200, 76, "white", stroke=FAINT)]
    shapes += [text(x, TOP + 16, "the round", colour=FAINT, size=11)]
    at = 0
    for count, fill in ((decode, DECODE), (prompt, USER), (probes, PROBE)):
        for _ in range(count):
            shapes.append(box(x + GAP * (at % 12), TOP + 26 + GAP * (at // 12), CELL, CELL, fill, radius=1))
            at += 1
    shapes += [text(x, TOP + 104, "held back", colour=FAINT, size=11), *cells(x, TOP + 112, held, HELD)]
    if held:
        shapes.append(path(f"M{x + 90},{TOP + 108} V{TOP + 80}", arrow=True))
    words = "or a process beside them " + ("stands still" if not beside else "has idle cores" if beside < 12 else "runs")
    shapes += [text(x, TOP + 166, words, colour=FAINT, size=11), box(x, TOP + 174, 12 * GAP - 2, CELL, STILL, radius=1)]
    return [*shapes, box(x, TOP + 174, beside * GAP - 2, CELL, PROBE, radius=1)] if beside else shapes


def legend() -> list[str]:
    words = ((DECODE, "a token of an answer"), (USER, "a prompt"), (PROBE, "probes of this step"), (HELD, "probes that wait"))
    shapes = []
    for place, (fill, said) in enumerate(words):
        x = 24 + 230 * place
        shapes += [box(x, 38, CELL, CELL, fill, radius=1), text(x + 20, 49, said, size=12)]
    return shapes


def after() -> list[str]:
    y = TOP + 226
    steps = ("all probes answered", "update, next probes", "losses into the journal", "every 50 steps: a version")
    told = ("L+ and L- of the step", "where the weights are", "what a crash goes on from", "free slot, dev split, switch")
    shapes = []
    for place, (name, what) in enumerate(zip(steps, told, strict=True)):
        x = 24 + 232 * place
        shapes += [box(x, y, 200, 48, "#e3f8e8", stroke="#18981d"), text(x + 10, y + 20, name, bold=True, size=12)]
        shapes.append(text(x + 10, y + 37, what, colour=FAINT, size=11))
        if place:
            shapes.append(path(f"M{x - 32},{y + 24} H{x - 4}", arrow=True))
    return shapes


def draw() -> str:
    title = "Scheduling rounds of a server that trains: users first, probes in what is left"
    shapes = [text(24, 26, title, size=15, bold=True), *legend()]
    for place, one in enumerate(ROUNDS):
        shapes += scheduled(32 + 310 * place, *one)
    return page(WIDTH, HEIGHT, title, [*shapes, *after()])


if __name__ == "__main__":
    save(__file__, draw())
