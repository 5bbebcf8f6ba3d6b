"""Folders that cannot be used and variables that say nonsense are named, with the remedy; permissions follow the umask."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.files import share, write_atomically
from workloads.models import hub
from workloads.models.cache import cache_dir, kept
from workloads.models.table import resolve_model

FAKE = ("run", "--executor", "fake", "--model", "none", "--device", "cpu", "--no-profile", "--sessions", "1", "--steps", "2")


def bench(folder: Path, *arguments: str, umask: int = 0o22, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "ZO_BENCH_CACHE", "XDG_CACHE_HOME")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])} | variables
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, umask=umask, capture_output=True, text=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a file").touch()
    return tmp_path / "a file"


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_results_that_are_or_lie_below_a_file(fake, file, below):
    done = fake("--results", str(file / below))
    assert done.code == 2 and done.err.count("\n") == 1
    assert f"--results {file / below}: cannot be written" in done.err and "give a writable folder" in done.err


@pytest.mark.parametrize("variable", ["ZO_BENCH_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_a_cache_that_cannot_be_made_names_its_variable_and_the_remedy(tmp_path, file, variable):
    done = bench(tmp_path, "run", "--executor", "eager", "--device", "cpu", **{variable: f"{file}/below"})
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"error: {variable}={file}/below: the cache cannot be used")
    assert "Not a directory; set ZO_BENCH_CACHE to a folder that can be written" in done.stderr


def test_a_user_without_a_home_is_told_which_variable_helps(monkeypatch):
    for name in ("ZO_BENCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    with pytest.raises(UsageError, match=r"HOME: not set, .* set ZO_BENCH_CACHE to a folder"):
        cache_dir()
    monkeypatch.setenv("ZO_BENCH_CACHE", "relative")
    assert cache_dir() == Path.cwd() / "relative"


@pytest.mark.parametrize("home", [{}, {"HOME": "/proc/none"}])
def test_without_a_home_a_run_is_made(tmp_path, home):
    done = bench(tmp_path, *FAKE, **home)
    assert done.returncode == 0, done.stderr


def modes(folder: Path) -> set[int]:
    """Permissions of a folder and all in it, those of files with the bits that only folders have."""
    found = ((path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (folder, *folder.rglob("*")))
    return {mode if folder else mode | ((mode & 0o444) >> 2) for folder, mode in found}


@pytest.mark.parametrize("umask", [0o22, 0o02, 0o77])
def test_results_follow_the_umask(tmp_path, umask):
    done = bench(tmp_path, *FAKE, umask=umask)
    assert Path(tmp_path, json.loads(done.stdout)["path"]).is_file()
    assert modes(tmp_path / "results") == {0o777 & ~umask}


@pytest.mark.parametrize("umask", [0o22, 0o02, 0o77])
def test_the_cache_and_all_that_is_shared_follow_the_umask(tmp_path, monkeypatch, umask):
    from safetensors.torch import save_file
    from torch import zeros

    monkeypatch.setenv("ZO_BENCH_CACHE", str(tmp_path / "cache"))
    before = os.umask(umask)
    try:
        (tmp_path / "private").mkdir(mode=0o700)
        save_file({"x": zeros(1)}, tmp_path / "private" / "file.safetensors")  # private by itself
        share(tmp_path / "private")
        write_atomically(tmp_path / "private" / "text", "x")
        kept("thing", lambda folder: save_file({"x": zeros(1)}, folder / "file.safetensors"))
        resolve_model("opt-125m", "random")
    finally:
        os.umask(before)
    assert modes(tmp_path / "private") == modes(tmp_path / "cache") == {0o777 & ~umask}


@pytest.mark.parametrize("address", ["hf-mirror.com", "https://", "", "ftp://hub", "http://[::1", "https://a b"])
def test_an_address_that_is_none_is_refused_by_name(monkeypatch, address):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    hub.in_reach.cache_clear()
    with pytest.raises(UsageError, match=r"HF_ENDPOINT=.*: no hub can be asked there .*; mend or unset it"):
        hub.in_reach()
    hub.in_reach.cache_clear()


def test_a_hub_cache_that_cannot_be_written_is_named(monkeypatch, file):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(file))
    with pytest.raises(UsageError, match=rf"HF_HOME={file}: {file}/hub: Not a directory; set HF_HOME"):
        try:
            (file / "hub").mkdir()
        except OSError as error:
            hub.refuse_unwritable(error)
    hub.refuse_unwritable(ConnectionRefusedError(111, "refused"))  # out of reach, which is no fault of anybody's


@pytest.mark.parametrize("variable", ["VLLM_USE_V2_MODEL_RUNNER", "VLLM_ENABLE_V1_MULTIPROCESSING"])
def test_a_switch_of_vllm_that_cannot_be_honoured_is_refused_before_anything_is_loaded(tmp_path, variable):
    done = bench(tmp_path, "run", "--executor", "vllm", "--device", "cpu", "--model", "nosuch", **{variable: "1"})
    assert done.returncode == 2 and done.stderr.startswith(f"error: {variable}=1: ") and done.stderr.count("\n") == 1


def test_the_doctor_says_how_to_mend_what_a_run_would_trip_over(tmp_path, file):
    (tmp_path / "tokenizers.py").touch()
    wrong = {"ZO_BENCH_CACHE": f"{file}/x", "HF_ENDPOINT": "hf-mirror.com", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    done = bench(tmp_path, "doctor", "--results", str(file), **wrong)
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    for name, word in [
        ("results", "--results"),
        ("cache", "ZO_BENCH_CACHE"),
        ("hub address", "HF_ENDPOINT"),
        ("vllm variables", "Unset"),
        ("working directory", "zo-bench"),
    ]:
        assert found[name]["ok"] is False and word in found[name]["mend"], found[name]
    assert str(tmp_path / "tokenizers.py") in found["working directory"]["found"]
    assert "Traceback" not in done.stderr
