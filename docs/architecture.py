"""Draws what imports what, from the code: `python docs/architecture.py` writes docs/architecture.svg.

The rows are the layers of tests/test_layers.py, top to bottom. An arrow that others imply is left out: where a imports b and c,
and b imports c, only the arrows from a to b and from b to c are drawn.
"""

from __future__ import annotations

import runpy
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from drawing import FAINT, INK, box, page, path, save, text

ROOT = Path(__file__).parents[1]
COLOURS = {"bench": "#d6e8fa", "workloads": "#d9f2dc", "baselines": "#fdebcf", "analysis": "#e9def8"}
BOX_WIDTH, BOX_HEIGHT, ROW, LANE, GAP, MARGIN, TOP = 164, 40, 70, 10, 18, 90, 56
SWEEPS = 40
Edges = dict[str, set[str]]
Item = str | tuple[str, str, int]
"""A place of the layers; or, where an arrow passes a row by, the lane that is kept free for it: (from, to, row)."""


def house() -> tuple[list[list[str]], Edges, dict[str, list[str]]]:
    """Rows of places from the top, who imports whom, and the rooms of a place that is a folder of folders."""
    layers = runpy.run_path(str(ROOT / "tests" / "test_layers.py"))
    rows: list[list[str]] = [list(line) for line in reversed(layers["LINES"])]
    below = next(number for number, row in enumerate(rows) if "bench.commands" in row) + 1
    rows[below].append("analysis")
    places = [place for row in rows for place in row]

    def place_of(module: str) -> str | None:
        return max((p for p in places if f"{module}.".startswith(f"{p}.")), key=len, default=None)

    imports: Edges = {place: set() for place in places}
    for module, others in layers["IMPORTS"].items():
        for other in others:
            here, there = place_of(module), place_of(other)
            if here and there and here != there:
                imports[here].add(there)
    folders = {place: ROOT / place.replace(".", "/") for place in places}
    rooms = {p: sorted(f.parent.name for f in folder.glob("*/__init__.py")) for p, folder in folders.items()}
    return rows, reduced(imports), rooms


def reduced(imports: Edges) -> Edges:
    """Without what other arrows imply."""

    def reached(start: str) -> set[str]:
        return imports[start] | {far for near in imports[start] for far in reached(near)}

    return {a: {b for b in found if not any(b in reached(c) for c in found - {b})} for a, found in imports.items()}


def lanes(rows: list[list[str]], imports: Edges) -> tuple[list[list[Item]], list[list[Item]]]:
    """The rows with a lane wherever an arrow passes one by, and every arrow as the items it runs through."""
    full: list[list[Item]] = [list(row) for row in rows]
    row_of = {place: number for number, row in enumerate(rows) for place in row}
    routes: list[list[Item]] = []
    for start in row_of:
        for end in sorted(imports[start]):
            route: list[Item] = [start]
            for number in range(row_of[start] + 1, row_of[end]):
                lane = (start, end, number)
                full[number].append(lane)
                route.append(lane)
            routes.append([*route, end])
    return full, routes


def positions(rows: list[list[Item]], routes: list[list[Item]]) -> dict[Item, float]:
    """Centres from left to right: each item near the middle of its neighbours below, above, and both, in turn."""
    near: dict[Item, tuple[list[Item], list[Item]]] = {item: ([], []) for row in rows for item in row}
    for upper, lower in (pair for route in routes for pair in pairwise(route)):
        near[upper][1].append(lower)
        near[lower][0].append(upper)
    x = {item: float(place * BOX_WIDTH) for row in rows for place, item in enumerate(row)}
    for sweep in range(SWEEPS):
        for row in reversed(rows) if sweep % 2 else rows:
            wanted = {}
            for item in row:
                above, below = near[item]
                around = above + below if sweep > SWEEPS / 2 else (below if sweep % 2 else above)
                wanted[item] = fmean([x[other] for other in around] or [x[item]])
            row[:] = [item for _, _, item in sorted((wanted[item], str(item), item) for item in row)]
            x |= apart(row, wanted)
    return x


def apart(row: list[Item], wanted: dict[Item, float]) -> dict[Item, float]:
    """In this order and without overlap, as near to what is wanted as pushing from both sides brings them."""
    width = [BOX_WIDTH if isinstance(item, str) else LANE for item in row]
    step = [(a + b) / 2 + GAP for a, b in pairwise(width)]
    pushed = [wanted[item] for item in row]
    pulled = list(pushed)
    for i in range(1, len(row)):
        pushed[i] = max(pushed[i], pushed[i - 1] + step[i - 1])
        pulled[-i - 1] = min(pulled[-i - 1], pulled[-i] - step[-i])
    return {item: (a + b) / 2 for item, a, b in zip(row, pushed, pulled, strict=True)}


def arrow(route: list[Item], x: dict[Item, float], y: dict[Item, float]) -> str:
    points = [(x[route[0]], y[route[0]] + BOX_HEIGHT)]
    for lane in route[1:-1]:
        points += [(x[lane], y[lane]), (x[lane], y[lane] + BOX_HEIGHT)]
    points.append((x[route[-1]], y[route[-1]] - 2))
    shape = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (y1 - y0) / 2 if x0 != x1 else 0
        shape += f" C{x0:.1f},{y0 + bend:.1f} {x1:.1f},{y1 - bend:.1f} {x1:.1f},{y1:.1f}"
    return path(shape, arrow=True)


def draw() -> str:
    rows, imports, rooms = house()
    full, routes = lanes(rows, imports)
    x = positions(full, routes)
    left = min(x[place] for place in x) - MARGIN
    x = {item: centre - left for item, centre in x.items()}
    width = max(x.values()) + MARGIN
    y: dict[Item, float] = {item: TOP + ROW * number for number, row in enumerate(full) for item in row}
    title = "Who imports whom: arrows point down, never up and never in a circle"
    shapes = [text(width / 2, 30, title, size=15, anchor="middle", bold=True)]
    shapes += [arrow(route, x, y) for route in routes]
    for place in (place for row in rows for place in row):
        left, top = x[place] - BOX_WIDTH / 2, y[place]
        shapes.append(box(left, top, BOX_WIDTH, BOX_HEIGHT, COLOURS[place.partition(".")[0]], stroke=FAINT))
        inside = ", ".join(rooms[place])
        shapes.append(text(x[place], top + (17 if inside else 25), place, anchor="middle", bold=True))
        if inside:
            shapes.append(text(x[place], top + 33, inside, size=9, colour=INK, anchor="middle"))
    return page(width, TOP + ROW * len(rows), title, shapes)


if __name__ == "__main__":
    save(__file__, draw())
