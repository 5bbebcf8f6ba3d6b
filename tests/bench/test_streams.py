"""Whatever the standard streams are: the run is made, its files are whole, the exit code is the run's."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.journal.file import read_journal
from bench.result import find_results, load_result

BENCH = f"{sys.executable} -m bench"
ANALYSIS = f"{sys.executable} -m analysis"
FAKE = "run --executor fake --model none --device cpu --no-profile --sessions 1 --warmup 1 --steps 2"
Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """shell(line): a line of bash in an empty folder; exit code, output, and stderr where the line does not send it away."""

    def call(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, env=ENVIRONMENT | variables, capture_output=True, text=True)

    return call


ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
ENVIRONMENT["PYTHONPATH"] = str(Path(__file__).parents[2])


def whole(folder: Path) -> None:
    """One passed result with its journal, nothing else, and nothing in the journal that is not of this suite."""
    (path,) = find_results([folder / "results"])
    assert load_result(path).status == "passed"
    assert len(read_journal(path.with_suffix(".journal.jsonl")).sessions[0].steps) == 3
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize(
    "streams",
    ["2>&-", "1>&-", "0<&-", "0<&- 1>&- 2>&-", "2>/dev/full", "1</dev/null", "2</dev/null", "| true", "2>&1 | head -c 1"],
)
def test_a_run_is_made_whatever_becomes_of_its_streams(shell, tmp_path, streams):
    done = shell(f"{BENCH} {FAKE} {streams}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr
    whole(tmp_path)
    if not re.search(r"1[<>]|\|", streams):
        assert json.loads(done.stdout.splitlines()[-1])["status"] == "passed"


def test_a_full_device_costs_the_last_line_and_is_said(shell, tmp_path):
    done = shell(f"{BENCH} {FAKE} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: standard output: No space left on device")
    whole(tmp_path)


@pytest.mark.parametrize("streams", ["2>&-", "0<&- 1>&- 2>&-", "2>&1 | true"])
@pytest.mark.parametrize(
    ("arguments", "code"), [("list", 0), ("--help", 0), ("run --help", 0), ("run --rank 0", 2), ("nosuch", 2)]
)
def test_exit_codes_do_not_depend_on_who_reads(shell, arguments, code, streams):
    done = shell(f"{BENCH} {arguments} {streams}; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize("streams", ["2>&-", "0<&- 1>&- 2>&-", "2>&1 | true"])
@pytest.mark.parametrize(("arguments", "code"), [("--help", 0), ("losses nosuch", 2), ("report", 2), ("nosuch", 2)])
def test_the_analysis_does_not_depend_on_who_reads_either(shell, arguments, code, streams):
    done = shell(f"{ANALYSIS} {arguments} {streams}; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize("folder", ["[b]old", "[/]", "a [link=x] b", "*?", "quo'te \"s"])
def test_every_path_is_printed_as_it_is(shell, tmp_path, folder):
    """Brackets are mark-up to the library that prints, and blanks and quotes are special to the shell that gets a command."""
    (tmp_path / "results").mkdir()
    written = shell(f"{BENCH} {FAKE} --results {shlex.quote(folder)}")
    assert written.returncode == 0, written.stderr
    path = json.loads(written.stdout)["path"]
    assert Path(tmp_path, path).is_file() and Path(path).parts[0] == folder.split("/")[0]
    assert path in written.stderr.replace("\n", "")
    for line in (f"{BENCH} compare {shlex.quote(folder)}", f"{BENCH} doctor --results {shlex.quote(folder)}"):
        done = shell(line)
        assert done.returncode in (0, 1) and json.loads(done.stdout.splitlines()[-1]) and "unexpected" not in done.stderr, (
            done.stderr
        )
    refused = shell(f"{ANALYSIS} losses {shlex.quote(folder + '/none')}")
    assert refused.returncode == 2 and f"{folder}/none" in refused.stderr


def test_what_the_encoding_lacks_is_spelled(shell, tmp_path):
    done = shell(f"{BENCH} {FAKE} --results 'dépôt ★'", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path, json.loads(done.stdout)["path"]).is_file()


def in_terminal(folder: Path, **variables: str) -> str:
    """What a terminal is sent by a run of the fake executor."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*BENCH.split(), *FAKE.split()], cwd=folder, env=ENVIRONMENT | variables, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    sent = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            sent += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return sent.decode()


MOVES = re.compile(r"\x1b\[[\d;?]*[^\d;?m]")
COLOURS = re.compile(r"\x1b\[(?:\d+;)*[34]\d")


def test_a_terminal_sees_a_bar_in_colour(tmp_path):
    sent = in_terminal(tmp_path, TERM="xterm-256color")
    assert MOVES.search(sent) and COLOURS.search(sent)


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    sent = in_terminal(tmp_path, TERM="dumb")
    assert "\x1b" not in sent and "\r\n" in sent and "written: " in sent


def test_no_color_is_obeyed(tmp_path):
    assert not COLOURS.search(in_terminal(tmp_path, TERM="xterm-256color", NO_COLOR="1"))


@pytest.mark.parametrize("columns", ["0", "1", "many"])
def test_a_terminal_without_a_width_gets_the_whole_table(tmp_path, columns):
    assert "passed" in in_terminal(tmp_path, TERM="xterm", COLUMNS=columns)


def test_colours_that_are_forced_move_no_cursor_in_a_file(shell):
    done = shell(f"{BENCH} {FAKE}", FORCE_COLOR="1")
    assert done.returncode == 0 and not MOVES.search(done.stderr)
