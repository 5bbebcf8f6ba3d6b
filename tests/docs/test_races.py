"""The races and estimates in docs/algorithms.md are what the committed files hold."""

import re
from pathlib import Path

from analysis.gradients import markdown, watched
from analysis.race import load, spelled
from analysis.runs import load_runs

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results" / "published" / "cpu"
PAGE = (ROOT / "docs" / "algorithms.md").read_text()


def test_the_tables_of_races_are_what_the_files_hold():
    pattern = r"^\| ([\w-]+)(?:, q \d)? \| \S+(?: \(edge\))?, eps \S+ \| (\d+ of \d+) \| (> )?(\d+)[^|]*\|[^|]*\| (.*?) \|"
    rows = re.findall(pattern, PAGE, re.MULTILINE)
    found = []
    for standing in load([PUBLISHED / "race" / f"{task}.json" for task in ("sst2", "tiny-choice")]):
        for entrant in standing.entrants:
            _, censored, number = spelled(entrant.middle("steps").value, entrant.budget).rpartition("> ")
            against = standing.against.get(entrant.workload)
            significant = against is not None and against.significant
            found.append((entrant.workload, f"{entrant.there} of {len(entrant.heats)}", censored, number, significant))
    assert [(*row[:4], row[4].startswith("**")) for row in rows] == found


def test_the_table_of_estimates_is_what_the_files_hold():
    assert markdown(watched(load_runs([PUBLISHED / "gradients"]))) in PAGE
