"""What the pages point at is there: files, names in the code, options of the command line; and pictures are as drawn."""

import ast
import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer

import bench.notebook
from bench.cli import app
from bench.registry import WORKLOADS, workload_class

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for pattern in ("*.md", "docs/*.md", "results/**/*.md") for page in ROOT.glob(pattern))
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
NAME = re.compile(r"`([\w/]+\.py):(\w+)`")
COMMAND = re.compile(r"python -m bench (\w[^`#\n]*(?:\n[^`\n]*(?=`))?)")


def page_id(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_names_of_the_code_are_defined_where_the_page_says(page):
    missing = []
    for file, name in NAME.findall(page.read_text()):
        tree = ast.parse((ROOT / file).read_text())
        found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        missing += [] if name in found else [f"{file}:{name}"]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_have_the_options_they_are_given(page):
    verbs = typer.main.get_command(app).commands
    wrong = []
    for command in COMMAND.findall(page.read_text().replace("\\\n", "")):
        verb, *rest = shlex.split(command)
        own, _, of_run = " ".join(rest).partition(" -- ")  # compare --revisions: what stands after -- is for `run`
        for name, words in ((verb, own), ("run", of_run)):
            known = {option for parameter in verbs[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
            wrong += [f"{name} {word}" for word in words.split() if word.startswith("--") and word not in known | {"--help"}]
    assert wrong == []


def test_the_notebook_page_calls_what_there_is():
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "notebook.md").read_text(), re.MULTILINE | re.DOTALL)
    called = set(re.findall(r"\bzo\.(\w+)", code))
    assert called == {"run", "table", "compare", "load"} <= set(dir(bench.notebook))


def test_the_table_of_algorithms_is_what_they_declare():
    row = re.compile(r"^\| `([\w-]+)` \| (.*?) \| .*? \| (.*?) \| .*? \| (.*?) \|$", re.MULTILINE)
    kinds = {name: workload_class(name) for name in WORKLOADS.own}
    declared = [(name, kind.formula, kind.forwards, kind.source) for name, kind in kinds.items()]
    assert row.findall((ROOT / "docs" / "algorithms.md").read_text()) == declared


@pytest.mark.parametrize("name", ["step", "architecture", "round"])
def test_a_picture_is_what_its_script_draws(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    drawn = runpy.run_path(str(ROOT / "docs" / f"{name}.py"))["draw"]()
    assert (ROOT / "docs" / f"{name}.svg").read_text() == drawn, f"stale: run `python docs/{name}.py`"
