"""Plug-in points are one place: nothing but the registry knows a workload, an executor or a task by its name."""

import ast
from pathlib import Path
from typing import get_args

from bench.api import Kind
from bench.registry import EXECUTORS, TASKS, WORKLOADS

ROOT = Path(__file__).parents[1]
NAMES = {*WORKLOADS.own, *EXECUTORS.own, *TASKS.own} - {*get_args(Kind)}  # a kind of direction may be compared
ALLOWED = ("bench/registry.py", "bench/commands/reproduce/", "analysis/")
"""The paper's tables and the attribution's path are about named executors."""


def compared(path: Path) -> set[str]:
    """Names that a module compares something with, by ==, != or in."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        sides += [case.pattern for case in node.cases] if isinstance(node, ast.Match) else []
        for side in sides:
            found |= {leaf.value for leaf in ast.walk(side) if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)}
    return found & NAMES


def test_nobody_compares_names():
    found = {}
    for top in ("bench", "workloads", "baselines", "analysis"):
        for path in sorted((ROOT / top).rglob("*.py")):
            place = str(path.relative_to(ROOT))
            if not place.startswith(ALLOWED) and (names := compared(path)):
                found[place] = names
    assert not found
