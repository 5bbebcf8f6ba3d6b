"""Files of any content and any name: rows come out as they went in, or a line says what is wrong. Nothing vanishes in silence.

Files are written here by hand or by other libraries than the readers'. `--hypothesis-profile soak` tries ten times as many.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import math
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.errors import UsageError
from workloads.rows.files import COMPRESSIONS, KINDS
from workloads.rows.read import Tables, read_tables
from workloads.rows.table import DataOptions, Row, Table
from workloads.rows.values import labels_of, text_of

COLUMNS = ("sentence", "label")
COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
spicy = st.sampled_from(
    ['"', '""', "\\", '\\"', ",", "\t", ";", "'", " ", "a", "é", "0", "1", "-1", "{", "[", "\u2028", "\ufeff", "​"]
)
breaks = st.sampled_from(["\n", "\r\n", "\r"])
line = st.lists(spicy, max_size=8).map("".join) | st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=12)
text = st.lists(spicy | breaks, max_size=8).map("".join) | line
suffixes = st.tuples(st.sampled_from(KINDS), st.sampled_from(["", *COMPRESSIONS]), st.booleans()).map(
    lambda parts: (parts[0] + parts[1]).upper() if parts[2] else parts[0] + parts[1]
)


def rows_of(cell: st.SearchStrategy[str], least: int = 1) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(cell, cell | st.sampled_from(["0", "1"])), min_size=least, max_size=6)


def read(content: bytes, name: str, columns: tuple[str, ...] = COLUMNS, **options: Any) -> Tables | None:
    """What is read of a file; None where one line refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return tables(path, columns, **options)


def tables(path: Path, columns: tuple[str, ...] = COLUMNS, **options: Any) -> Tables | None:
    try:
        return read_tables(path, columns, DataOptions(**options))
    except UsageError as error:
        assert str(error).startswith("--") and "\n" not in str(error) and "Traceback" not in str(error)
        return None


def values(found: Tables) -> list[tuple[Any, Any]]:
    return [(row["sentence"], row["label"]) for row in found.train.rows]


@given(st.binary(max_size=200) | st.lists(spicy | breaks, max_size=60).map(lambda parts: "".join(parts).encode()), suffixes)
def test_random_bytes(content: bytes, suffix: str) -> None:
    header = b"sentence,label\n" if ".csv" in suffix.lower() else b"sentence\tlabel\n"
    for start in (b"", header):
        compress = COMPRESS.get(suffix[suffix.rfind(".") :].lower(), bytes)
        for written in (start + content, compress(start + content)):
            found = read(written, f"rows{suffix}")
            assert found is None or all({*COLUMNS} <= row.values.keys() for row in found.train.rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A good file of each kind."""
    frame = pd.DataFrame({"sentence": [f"a film {i}" for i in range(40)], "label": [i % 2 for i in range(40)]})
    folder = tmp_path_factory.mktemp("whole")
    frame.to_parquet(folder / "f.parquet")
    frame.to_feather(folder / "f.arrow", compression="uncompressed")
    for lines in ("f.jsonl", "f.ndjson"):
        frame.to_json(folder / lines, orient="records", lines=True)
    frame.to_json(folder / "f.json", orient="records")
    frame.to_csv(folder / "f.csv", index=False)
    frame.to_csv(folder / "f.tsv", index=False, sep="\t")
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@given(
    st.sampled_from(KINDS), st.sampled_from([*COMPRESS]), st.integers(0, 10**6), st.binary(min_size=1, max_size=4), st.booleans()
)
def test_damaged_files(whole: dict[str, bytes], kind: str, compression: str, at: int, noise: bytes, cut: bool) -> None:
    content = COMPRESS[compression](whole[kind])
    at %= len(content)
    read(content[:at] if cut else content[:at] + noise + content[at + len(noise) :], f"rows{kind}{compression}")


def quoted(cell: str, always: bool) -> str:
    needed = always or any(mark in cell for mark in '",\r\n')
    return '"' + cell.replace('"', '""') + '"' if needed else cell


@given(rows_of(text), st.booleans(), breaks, st.booleans())
def test_csv_comes_out_as_it_went_in(rows: list[tuple[str, str]], always: bool, end: str, last: bool) -> None:
    lines = [",".join(quoted(cell, always) for cell in row) for row in [COLUMNS, *rows]]
    found = read((end.join(lines) + end * last).encode(), "rows.csv")
    assert found is not None and values(found) == rows


@given(rows_of(line))
def test_csv_written_without_quotes_loses_no_row_in_silence(rows: list[tuple[str, str]]) -> None:
    found = read("".join(",".join(row) + "\n" for row in [COLUMNS, *rows]).encode(), "rows.csv")
    assert found is None or found.warnings or len(found.train) == len(rows)


quotes = st.lists(st.sampled_from(['"', ",", "a", " "]), min_size=1, max_size=6).map("".join)


@given(rows_of(quotes))
def test_csv_with_backslashes_before_quotes_is_never_garbled(rows: list[tuple[str, str]]) -> None:
    """Written as other tools do: \\" inside quotes."""
    assume(any('"' in cell for row in rows for cell in row))
    escaped = [",".join('"' + cell.replace('"', '\\"') + '"' for cell in row) for row in rows]
    found = read("\n".join(["sentence,label", *escaped]).encode(), "rows.csv")
    assert found is None or found.warnings


@given(rows_of(line.filter(lambda cell: "\t" not in cell)))
def test_tsv_comes_out_as_it_went_in(rows: list[tuple[str, str]]) -> None:
    assume(not rows[0][0].startswith("\ufeff"))
    found = read("".join("\t".join(row) + "\n" for row in [COLUMNS, *rows]).encode(), "rows.tsv")
    assert found is not None and values(found) == rows


@given(rows_of(text), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
def test_tsv_that_was_quoted_is_never_garbled_in_silence(rows: list[tuple[str, str]], quoting: Any) -> None:
    torn = any("\t" in cell and ("\n" in cell or "\r" in cell) for row in rows for cell in row)
    assume(not torn)  # its two halves can be two rows of a tsv without quotes, word for word
    content = pd.DataFrame(rows, columns=[*COLUMNS]).to_csv(index=False, sep="\t", quoting=quoting)
    found = read(content.encode(), "rows.tsv")
    assert found is None or found.warnings or values(found) == rows


@given(st.lists(line, max_size=4), st.permutations(["sentence", "label", 0, 1, 2, 3]), st.sampled_from(["csv", "tsv"]))
def test_random_columns(more: list[str], order: list[Any], kind: str) -> None:
    """Anywhere among others, of which two may share a name: then the file is refused."""
    separator = "," if kind == "csv" else "\t"
    names = [more[at] if isinstance(at, int) else at for at in order if not isinstance(at, int) or at < len(more)]
    assume(kind == "csv" or not any("\t" in name for name in names))
    assume(not names[0].startswith("\ufeff"))
    cells = [f"cell {at}" for at in range(len(names))]
    header = separator.join(quoted(name, True) for name in names) if kind == "csv" else separator.join(names)
    found = read(f"{header}\n{separator.join(cells)}\n".encode(), f"rows.{kind}")
    given_names = [name.strip() for name in names if name.strip()]
    if len({*given_names}) < len(given_names):
        assert found is None
    else:
        assert found is not None
        row = found.train.rows[0]
        assert all(row[name.strip()] == cell for name, cell in zip(names, cells, strict=True) if name.strip())


leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text
nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(line, inner, max_size=3), max_leaves=6)


@given(
    st.lists(st.dictionaries(line, nested, max_size=3), min_size=1, max_size=4),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.booleans(),
)
def test_json_comes_out_as_it_went_in(extra: list[dict], indent: int | None, as_list: bool, ascii_only: bool) -> None:
    rows = [{**more, "sentence": "a", "label": at % 2} for at, more in enumerate(extra)]
    written = [rows] if as_list else rows
    content = "\n".join(json.dumps(row, indent=indent, ensure_ascii=ascii_only) for row in written)
    found = read(content.encode(), "rows.jsonl")
    assert found is not None and [dict(row.values) for row in found.train.rows] == rows


@given(st.lists(st.tuples(text, leaves), min_size=1, max_size=6), st.sampled_from([*COMPRESS]))
def test_parquet_comes_out_as_it_went_in(rows: list[tuple], compression: str) -> None:
    kinds = {type(value) for _, value in rows if value is not None}
    assume(len(kinds) < 2)
    frame = pd.DataFrame({"sentence": [a for a, _ in rows], "label": pd.Series([b for _, b in rows], dtype=object)})
    found = read(COMPRESS[compression](frame.to_parquet()), f"rows.parquet{compression}")
    assert found is not None and values(found) == rows


names = st.sampled_from(
    ["train", "TRAIN", "training", "my-train", "train_set", "dev", "test", "rows", "data/train", "train/part", "x"]
)
numbers = st.sampled_from(
    ["", "-0", "-1", "-2", "_1", "-00000-of-00001", "-00000-of-00002", "-00001-of-00002", "-00002-of-00002"]
)
shards = st.tuples(names, numbers, st.sampled_from([".tsv", ".csv", ".TSV", ".tsv.gz"])).map("".join)


@given(st.lists(shards, min_size=1, max_size=4, unique=True))
def test_random_names_in_a_folder(chosen: list[str]) -> None:
    """Every file is read, or left out and named, or the folder is refused."""
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            content = "sentence{0}label\n{1}{0}1\n".format("," if ".csv" in name else "\t", name).encode()
            path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        found = tables(Path(folder))
    if found is not None:
        rows = [*found.train.rows, *(found.validation.rows if found.validation else ())]
        read_names = [Path(row["sentence"]).name for row in rows]
        assert sorted([*read_names, *found.left_out]) == sorted(Path(name).name for name in chosen)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=20), st.sampled_from(".[]*?:{}"))
def test_random_names_of_a_file(name: str, mark: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{mark}{name}.tsv")
        Path(folder, "a.tsv").write_text("sentence\tlabel\nanother\t1\n")
        path.write_text("sentence\tlabel\nthis one\t1\n")
        found = tables(path)
    assert found is not None and values(found) == [("this one", "1")]


@given(rows_of(line), st.sampled_from(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis"]))
def test_encodings(rows: list[tuple[str, str]], encoding: str) -> None:
    content = "\n".join(",".join(quoted(cell, True) for cell in row) for row in [COLUMNS, *rows])
    try:
        written = content.encode(encoding)
    except UnicodeEncodeError:
        assume(False)
    assume(written.decode(encoding) == content)
    given_encoding = read(written, "rows.csv", encoding=encoding)
    assert given_encoding is not None and values(given_encoding) == rows
    unsaid = read(written, "rows.csv")
    assert unsaid is None or values(unsaid) == rows or encoding in ("latin-1", "cp1252", "shift_jis")


@given(
    leaves | st.floats() | st.lists(st.integers(), max_size=2) | line,
    st.sampled_from([("negative", "positive"), ("a", "b", "c")]),
)
def test_random_labels(value: Any, words: tuple[str, ...]) -> None:
    table = Table((Row({"label": value, "sentence": value}, "f", 1),))
    try:
        (label,) = labels_of(table, "label", words)
    except UsageError as error:
        assert "row 1" in str(error) and "\n" not in str(error)
    else:
        number = float(value) if str(value).strip().casefold() not in words else words.index(value.strip().casefold())
        assert label == number and 0 <= label < len(words)
    try:
        found = text_of(table.rows[0], "sentence")
    except UsageError as error:
        assert "row 1" in str(error)
        assert not isinstance(value, int) and not (isinstance(value, float) and not math.isnan(value))
    else:
        assert found.strip() and (found == value or json.loads(found) == value)
