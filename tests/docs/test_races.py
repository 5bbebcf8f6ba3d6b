"""The races and estimates in docs/algorithms.md are what the committed files hold."""

import re
from pathlib import Path

from analysis.gradients import markdown, watched
from analysis.race import load, spelled
from analysis.runs import load_runs

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results" / "published" / "cpu"
PAGE = (ROOT / "docs" / "algorithms.md").read_text()


def test_the_table_of_races_is_what_the_files_hold():
    rows = re.findall(r"^\| ([\w-]+), 0\.95 \| ([\w-]+?)(?:, q 4)? \| .*? \| (\d of \d) \| (> )?(\d+)", PAGE, re.MULTILINE)
    found = []
    for standing in load([PUBLISHED / "race" / f"{task}.json" for task in ("sst2", "tiny-choice")]):
        for entrant in sorted(standing.entrants, key=lambda e: ("lozo", "mezo", "factorized", "one-sided").index(e.workload)):
            steps = spelled(entrant.middle("steps").value, entrant.budget)
            more, _, number = steps.rpartition("> ")
            there = f"{entrant.there} of {len(entrant.heats)}"
            found.append((standing.race.spec["task"], entrant.workload, there, "> " if more or ">" in steps else "", number))
    assert rows == found
    first = load([PUBLISHED / "race" / "sst2.json"])[0]
    against = first.against["mezo"]
    assert f"{against.ratio:.2f} times lozo's minibatches, 95 % interval {against.low:.2f} to {against.high:.2f}" in PAGE
    assert not against.significant


def test_the_table_of_estimates_is_what_the_files_hold():
    assert markdown(watched(load_runs([PUBLISHED / "gradients"]))) in PAGE
