"""Whatever a specification, a result or a journal holds: it is read as what it says, or one clear line says why not."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_result import RESULT, SPEC

from bench.config import RunOptions, RunSpec
from bench.defaults import complete
from bench.errors import UsageError
from bench.journal.events import SessionLog
from bench.journal.file import JournalWriter, header_entry, read_journal
from bench.registry import WORKLOADS
from bench.result import load_result
from bench.settings import settings as options_of

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["0", "nan", "cpu", ""])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
CHOICES = {name: found.choices for name, found in options_of(RunSpec).items() if found.choices}
quick = settings(max_examples=150, deadline=None)


def one_line(error: pytest.ExceptionInfo[UsageError] | UsageError) -> None:
    text = str(error)
    assert text and "Traceback" not in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@quick
@given(st.dictionaries(st.sampled_from([f.name for f in fields(RunSpec)]) | st.text(max_size=8), values, max_size=4))
def test_a_specification_is_valid_or_refused(changes):
    try:
        spec = RunSpec.from_json(SPEC.to_json() | changes)
    except UsageError as error:
        return one_line(error)
    assert all(getattr(spec, name) in valid for name, valid in CHOICES.items())
    for name in ("steps", "batch_size", "rank", "interval", "queries"):
        assert type(getattr(spec, name)) is int and getattr(spec, name) >= 1
    for name in ("learning_rate", "eps"):
        assert type(getattr(spec, name)) in (int, float) and math.isfinite(getattr(spec, name))
    assert type(spec.workload) is type(spec.model) is str
    assert type(spec.evaluate) is type(spec.trust_remote_code) is bool and type(spec.seed) is int
    json.dumps(spec.to_json(), allow_nan=False)


options = st.fixed_dictionaries(
    {"executor": st.just("fake")},
    optional={
        "workload": st.sampled_from([*WORKLOADS.own, "x"]),
        "batching": st.sampled_from([*CHOICES["batching"], "x"]),
        "kv": st.sampled_from([*CHOICES["kv"], ""]),
        "lora": st.sampled_from([*CHOICES["lora"]]),
        "device": st.sampled_from(["cpu", "tpu"]),
        "steps": st.integers(-2, 3),
        "eps": st.floats(),
        "learning_rate": st.floats(),
        "model": st.text(max_size=8),
        "data": st.text(min_size=1, max_size=8),
    },
)


@quick
@given(options)
def test_options_make_a_valid_specification_or_are_refused(chosen):
    try:
        spec = complete({"device": "cpu", **chosen})
    except UsageError as error:
        return one_line(error)
    assert RunSpec.from_json(spec.to_json()) == spec
    assert not (spec.lora == "dense" and spec.batching == "paired")


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside a JSON value."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, item in items for place in [(*path, key), *places(item, (*path, key))]]


PLACES = places(RESULT.to_json())


def changed(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    data = json.loads(json.dumps(RESULT.to_json()))
    inside: Any = data
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return data


@quick
@given(st.sampled_from(PLACES), values)
def test_a_result_with_another_value_is_that_result_or_refused(folder, place, value):
    path = folder / "20260101T000000Z_x.json"
    data = changed(place, value)
    path.write_text(json.dumps(data))
    try:
        found = load_result(path)
    except UsageError as error:
        return one_line(error)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == data


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_that_are_no_floats_are_refused(folder, number):
    path = folder / "20260101T000000Z_z.json"
    path.write_text(json.dumps(RESULT.to_json()).replace("1.5", number))
    with pytest.raises(UsageError):
        load_result(path)


@quick
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | values.map(lambda v: json.dumps(v).encode()))
def test_bytes_that_are_no_result_or_journal_are_refused(folder, content):
    path = folder / "20260101T000000Z_y.json"
    path.write_bytes(content)
    for read in (load_result, read_journal):
        with pytest.raises(UsageError) as error:
            read(path)
        one_line(error)


@quick
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4), st.sampled_from(["replace", "insert", "cut"]))
def test_a_damaged_journal_never_reads_as_more_or_other_than_was_written(folder, position, noise, how):
    path = folder / f"{position}{how}.journal.jsonl"
    path.unlink(missing_ok=True)
    entries = [step(i) for i in range(3)]
    whole = write(path, entries).read_bytes()
    at = position % len(whole)
    middle = {"replace": noise + whole[at + len(noise) :], "insert": noise + whole[at:], "cut": whole[at + len(noise) :]}[how]
    path.write_bytes(whole[:at] + middle)
    try:
        found = read_journal(path)
    except UsageError as error:
        return one_line(error)
    finally:
        path.unlink()
    assert found.header.result == RESULT
    losses = [entry.losses for history in found.sessions.values() for entry in history.steps]
    assert losses == [entry["losses"] for entry in entries][: len(losses)]


@quick
@given(
    st.sampled_from(["step", "checksum", "snapshot", "check", "evaluation", "warning", "error", "data", "done", "x"]), st.data()
)
def test_entries_of_any_content_are_taken_whole_or_refused(folder, kind, data):
    names = [*step(0), "text", "status", "value", "file", "sha256", "checksum", "kind", "split", "accuracy", "loss", "examples"]
    wild = data.draw(st.dictionaries(st.sampled_from(names), values, max_size=6))
    wild |= data.draw(st.sampled_from([{}, {key: value for key, value in step(0).items() if key != "event"}]))
    path = folder / "entries.journal.jsonl"
    path.unlink(missing_ok=True)
    write(path, [{**wild, "event": kind}, {"event": "done"}])
    try:
        found = read_journal(path)
    except UsageError as error:
        return one_line(error)
    log = SessionLog(0)
    for event in found.sessions[0].events:
        log.add(event)
    json.dumps(log.result().losses, allow_nan=False)


def step(number: int) -> dict[str, Any]:
    numbers = {"step": number, "step_s": 0.1, "losses": [0.1 * number, 0.2], "projected_gradients": [1.0], "seed": 0}
    return {"event": "step", **numbers, "warmup": False, "epoch": [0, 0], "learning_rate": 0.1}


def write(path: Path, events: list[dict[str, Any]]) -> Path:
    writer = JournalWriter(path)
    writer.write(header_entry(RESULT, RunOptions()))
    for event in events:
        writer.event(0, event)
    writer.close()
    return path
