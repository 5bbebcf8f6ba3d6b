"""Where text for people goes: stderr, as wide as the terminal, or wide enough for the tables where there is none.

Nothing in a text is taken as markup: a path may hold square brackets. Cursor movements stay away from files and from terminals
that do not know them.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH, NARROWEST = 150, 40


def stderr_console() -> Console:
    from rich.console import Console

    terminal = sys.stderr.isatty()
    width = max(NARROWEST, shutil.get_terminal_size((WIDTH, 0)).columns) if terminal else WIDTH
    moves = terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return Console(stderr=True, highlight=False, markup=False, emoji=False, width=width, force_interactive=moves)
