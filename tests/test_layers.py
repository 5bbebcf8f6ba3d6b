"""The house: nobody imports what lies above it, and nobody imports in a circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = """
bench.errors bench.data bench.files bench.streams bench.ranges bench.terminal
bench.shadowing bench.until bench.settings
bench.program
bench.config
bench.api bench.result
bench.steptimes
bench.raced
bench.entry
bench.registry bench.nvml bench.onednn
bench.environment
workloads
baselines bench.executors bench.recorders bench.journal
bench.harness
bench.defaults
bench.serving
bench.commands
bench.cli_options
bench.cli_scale bench.cli_serve
bench.cli bench.notebook bench.trainer
bench.__main__
"""
"""From the ground up. A module may import from its own line and from those above it here; a package stands for all it holds."""
READS_RESULTS = {
    "bench.result",
    "bench.steptimes",
    "bench.raced",
    "bench.entry",
    "bench.errors",
    "bench.program",
    "bench.data",
    "bench.config",
    "bench.settings",
    "bench.api",
    "bench.registry",
    "bench.terminal",
    "bench.recorders.work",
}
"""All that the analysis may know of the rest."""
VERBS = {"bench.commands", "bench.cli", "bench.notebook"}
"""Who may call the analysis."""


def modules() -> dict[str, Path]:
    found = {}
    for top in ("bench", "workloads", "baselines", "analysis"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """The project's modules that a module names in any import: in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in MODULES else node.module for a in node.names}
    return (found & MODULES.keys()) - {name}


IMPORTS = {name: imports(name) for name in MODULES}
LINES = [line.split() for line in LAYERS.split("\n") if line]


def inside(name: str, places) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def floor(name: str) -> int:
    found = [number for number, line in enumerate(LINES) if inside(name, line)]
    assert found, f"{name} has no place in LAYERS"
    return found[0]


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name != "bench" and not inside(name, ["analysis"])))
def test_no_module_imports_what_lies_above_it(name):
    project = {other for other in IMPORTS[name] if other != "bench" and not inside(other, ["analysis"])}
    upwards = {other for other in project if floor(other) > floor(name)}
    assert not upwards
    if not inside(name, VERBS):
        assert not {other for other in IMPORTS[name] if inside(other, ["analysis"])}


def test_the_analysis_reads_result_files_alone():
    for name in MODULES:
        if inside(name, ["analysis"]):
            assert {other for other in IMPORTS[name] if not inside(other, ["analysis"])} <= READS_RESULTS, name


def test_there_is_no_circle():
    left = {name: set(others) for name, others in IMPORTS.items()}
    while free := {name for name, others in left.items() if not others}:
        left = {name: others - free for name, others in left.items() if name not in free}
    assert not left, f"these import each other: {sorted(left)}"
