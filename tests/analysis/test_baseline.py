"""What compare says of a change, and history of many: from results whose truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from analysis.history import history
from analysis.runs import load_runs
from bench.commands.compare import run_compare
from bench.errors import UsageError

STEADY = [0.100, 0.101, 0.099, 0.100, 0.102]
HOW = {"reference": None, "format": "table", "fail_below": None}


def at(result, commit):
    return replace(result, source=result.source | {"commit": commit})


def held_against(capfd, earlier, *later):
    code = run_compare(later, **HOW, baseline=[earlier])
    out, err = capfd.readouterr()
    return code, json.loads(out.splitlines()[-1])["tables"], err


@pytest.mark.parametrize(
    ("factor", "paired", "code", "verdict"),
    [
        (1.3, True, 1, "1.3x slower"),
        (1.3, False, 1, "1.3x slower"),
        (1.0, True, 0, "no difference"),
        (0.5, False, 0, "2.0x faster"),
    ],
)
def test_a_slower_point_is_found_and_ends_with_1(make_result, write, capfd, factor, paired, code, verdict):
    pair = "together" if paired else None
    later = make_result("eager", [factor * seconds for seconds in STEADY], pair_id=pair, id="later")
    a, b = write(at(make_result("eager", STEADY, pair_id=pair), "a" * 40), at(later, "b" * 40))
    found, (table,), err = held_against(capfd, a, b)
    row = table["rows"][1]
    assert (found, row["paired"]) == (code, paired) and row["verdict"].startswith(verdict)
    assert "eager at aaaaaaaa" in err and "eager at bbbbbbbb" in err
    assert ("error: eager at bbbbbbbb: 1.3x slower" in err) == bool(code)


def test_few_and_noisy_sessions_are_undecided_and_no_regression(make_result, write, capfd):
    a, b = write(make_result("eager", [0.1, 0.14, 0.08]), make_result("eager", [0.11, 0.15, 0.09], id="later"))
    code, (table,), _ = held_against(capfd, a, b)
    assert code == 0 and table["rows"][1]["verdict"].startswith("undecided: about")


def test_wrong_losses_now_are_a_regression(make_result, write, capfd):
    a, b = write(make_result("eager", STEADY), make_result("eager", STEADY, id="later", status="incorrect"))
    code, _, err = held_against(capfd, a, b)
    assert code == 1 and "refused: its losses are wrong" in err


def test_only_like_points_are_compared_and_the_rest_is_named(make_result, write, capfd):
    later = make_result("eager", STEADY, id="later")
    a, b, c = write(make_result("eager", STEADY), later, make_result("vllm", STEADY))
    code, tables, err = held_against(capfd, a, b, c)
    assert code == 0 and len(tables) == 1
    assert "not in the baseline: vllm kv=shared" in err


def test_nothing_alike_is_bad_input(make_result, write):
    a, b = write(make_result("eager", STEADY), make_result("eager", STEADY, id="later", batch_size=3))
    with pytest.raises(UsageError, match=r"no run has its like there; .* differ in batch_size \(16, 3\)"):
        run_compare([b], **HOW, baseline=[a])


@pytest.mark.parametrize("how", [{"reference": "eager"}, {"every": True}, {"revisions": ("a", "b")}])
def test_a_baseline_is_the_only_reference(how):
    with pytest.raises(UsageError, match="the earlier run is the reference"):
        run_compare([], **(HOW | {"baseline": ["x"]} | how))


def test_history_says_which_commit_changed_what(make_result, write, tmp_path):
    times = {"a": STEADY, "b": [1.4 * s for s in STEADY], "c": [1.4 * s for s in STEADY]}
    results = [
        at(make_result("eager", seconds, created=f"2026010{i}T000000Z"), name * 40)
        for i, (name, seconds) in enumerate(times.items())
    ]
    paths = write(*results, at(make_result("vllm", STEADY), "a" * 40))
    found = [entry for entry in history(load_runs(paths)) if entry.line.startswith("eager")]
    assert [entry.run.result.source["commit"][0] for entry in found] == ["a", "b", "c"]
    first, second, third = (entry.change for entry in found)
    assert first is None and second.verdict == "1.4x slower" and third.verdict.startswith("no difference")
    picture = tmp_path / "out" / "history.png"
    command = [sys.executable, "-m", "analysis", "history", *map(str, paths), "--output", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1.4x slower" in done.stderr and picture.stat().st_size > 5000
    assert len(json.loads(done.stdout)["entries"]) == 4
