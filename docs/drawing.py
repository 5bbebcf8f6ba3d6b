"""Shapes for the pictures of this folder: a few lines of SVG each, so that drawing them needs nothing installed."""

from __future__ import annotations

from html import escape
from pathlib import Path

FONT = "font-family='Helvetica, Arial, sans-serif'"
INK, FAINT = "#1f2933", "#52606d"


def text(x: float, y: float, words: str, *, size: int = 13, colour: str = INK, anchor: str = "start", bold: bool = False) -> str:
    weight = " font-weight='bold'" if bold else ""
    return f"<text x='{x:g}' y='{y:g}' font-size='{size}' fill='{colour}' text-anchor='{anchor}'{weight}>{escape(words)}</text>"


def box(x: float, y: float, width: float, height: float, fill: str, *, stroke: str = "none", radius: float = 4) -> str:
    place = f"x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='{radius:g}'"
    return f"<rect {place} fill='{fill}' stroke='{stroke}'/>"


def path(shape: str, *, colour: str = FAINT, arrow: bool = False) -> str:
    end = " marker-end='url(#arrow)'" if arrow else ""
    return f"<path d='{shape}' fill='none' stroke='{colour}' stroke-width='1.3'{end}/>"


def page(width: float, height: float, title: str, shapes: list[str]) -> str:
    """A whole picture on white, so that it reads on a dark page too."""
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' width='{width:g}' {FONT}>"
    marker = (
        "<defs><marker id='arrow' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        f"<path d='M0,0 L8,4 L0,8 z' fill='{FAINT}'/></marker></defs>"
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", marker, box(0, 0, width, height, "white"), *shapes, "</svg>\n"])


def save(script: str, picture: str) -> None:
    """Beside the script, under its name."""
    Path(script).with_suffix(".svg").write_text(picture)
