"""A run keeps where its files are as seen from anywhere, and knows them again where they have moved to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.data import ModelSource
from bench.defaults import complete
from bench.errors import UsageError
from bench.files import anchored
from bench.journal.file import JournalWriter, read_journal
from bench.result import load_result
from workloads.models.digest import model_digest
from workloads.models.table import resolve_model
from workloads.models.weights import load_model


@pytest.fixture
def model(tmp_path: Path, tiny_source: Callable[..., ModelSource], opt_tiny: ModelSource) -> Path:
    """A folder `myopt` of a pretrained model with the tokenizer of opt-tiny."""
    folder = tmp_path / "myopt"
    made = load_model(tiny_source("opt", vocab_size=700), torch.float32, "cpu")
    made.save_pretrained(folder)  # type: ignore[operator]
    for path in Path(opt_tiny.path).glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize(("where", "typed"), [("..", "myopt"), ("..", "./myopt"), (".", "."), ("..", "../x/myopt")])
def test_a_folder_is_found_however_it_is_typed_and_kept_from_the_root(model, monkeypatch, where, typed):
    (model.parent.parent / "x").unlink(missing_ok=True)
    (model.parent.parent / "x").symlink_to(model.parent)
    monkeypatch.chdir(model / where)
    assert resolve_model(typed, "auto").path == str(model)
    spec = complete({"executor": "eager", "device": "cpu", "model": typed})
    assert Path(spec.model).is_absolute() and os.path.samefile(spec.model, model) and spec.weights == "pretrained"


def test_a_name_of_the_table_stays_the_tables(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    model.rename("opt-125m")
    assert complete({"executor": "eager", "device": "cpu", "model": "opt-125m", "weights": "random"}).model == "opt-125m"
    assert resolve_model("./opt-125m", "auto").path == str(model.parent / "opt-125m")


@pytest.mark.parametrize(
    ("typed", "why"), [("./none", "no such folder"), ("myopt/config.json", "not a folder"), ("./empty", "no config.json")]
)
def test_what_is_no_model_is_said(model, monkeypatch, typed, why):
    monkeypatch.chdir(model.parent)
    Path("empty").mkdir()
    with pytest.raises(UsageError, match=f"--model {typed}: {why}"):
        resolve_model(typed, "auto")


def test_dots_stay_where_a_symbolic_link_stands_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    assert anchored("a/../file") == str(tmp_path / "file")
    assert Path(anchored("link/../file")).resolve() == tmp_path / "a" / "file"


def test_the_digest_is_of_what_a_model_is_not_of_where(model):
    def digest(folder: Path, weights: str = "pretrained") -> str:
        return model_digest(ModelSource("", str(folder), weights))

    before = digest(model), digest(model, "random")
    moved = model.rename(model.parent / "moved")
    assert (digest(moved), digest(moved, "random")) == before
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))  # one number of the last tensor
    assert digest(moved) != before[0] and digest(moved, "random") == before[1]
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"transformers_version": "0"}))
    assert digest(moved, "random") == before[1]
    (moved / "config.json").write_text(json.dumps(config | {"num_attention_heads": 4}))
    assert digest(moved, "random") != before[1]


def test_a_run_goes_on_and_is_exported_from_another_place_with_its_model_elsewhere(bench, model, tmp_path, monkeypatch):
    data = tmp_path / "rows.tsv"
    data.write_text("sentence\tlabel\n" + "".join(f"a fine film {i}\t{i % 2}\n" for i in range(40)))
    monkeypatch.chdir(tmp_path)
    options = ("--executor", "eager", "--device", "cpu", "--no-profile", "--steps", "4", "--warmup", "0", "--sessions", "2")
    done = bench("run", *options, "--model", "myopt", "--data", "rows.tsv")
    assert done.code == 0, done.err
    path = Path(done.json["path"])
    result, name = load_result(path), path.stem.rpartition("_")[2]
    assert (result.spec["model"], result.spec["data"]) == (str(model), str(data))
    assert len(result.data["model_digest"]) == 16
    cut_short(path)

    monkeypatch.chdir("/")
    moved = model.rename(tmp_path / "elsewhere")
    gone = bench("run", "--resume", name)
    assert gone.code == 2 and f"--model {model}: no longer there; give the place it was moved to with --model" in gone.err
    config = (moved / "config.json").read_text()
    (moved / "config.json").write_text(config.replace('"init_std": 0.1', '"init_std": 0.2'))
    other = bench("run", "--resume", name, "--model", str(moved))
    assert other.code == 2 and f"--model {moved}: its files are not those the run began with" in other.err
    (moved / "config.json").write_text(config)
    resumed = bench("run", "--resume", name, "--model", str(moved))
    assert resumed.code == 0, resumed.err
    assert [session.losses for session in load_result(path).sessions] == [session.losses for session in result.sessions]

    where = ("--results", str(path.parents[1]), "--output", str(tmp_path / "exported"))
    assert bench("export", name, *where).code == 2
    exported = bench("export", name, *where, "--model", str(moved))
    assert exported.code == 0, exported.err
    adapter = json.loads((tmp_path / "exported" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(moved)


def cut_short(path: Path) -> None:
    """The second session of a run is undone: as if the process had been killed in its middle."""
    journal = path.with_suffix(".journal.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    steps = [i for i, line in enumerate(lines) if b'"session":1' in line and b'"event":"step"' in line]
    journal.write_bytes(b"".join(lines[: steps[1] + 1]))
    assert len(read_journal(journal).sessions[1].steps) == 2
    JournalWriter(journal, new=False).close()
