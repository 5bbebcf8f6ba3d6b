"""Every kind of file: what goes in comes out, or one line says which row is wrong and what to do."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from bench.errors import UsageError
from workloads.rows.read import Tables, read_tables
from workloads.rows.table import DataOptions

COLUMNS = ("sentence", "label")
ROWS = [(f"a fine film {i}", i % 2) for i in range(6)]


def read(path: Path, **options) -> Tables:
    return read_tables(path, COLUMNS, DataOptions(**options))


def pairs(path: Path, **options) -> list[tuple]:
    return [(row["sentence"], row["label"]) for row in read(path, **options).train.rows]


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def arrow(frame: pd.DataFrame, path: Path) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".json": lambda frame, path: frame.to_json(path, orient="records", indent=1),
    ".parquet": lambda frame, path: frame.to_parquet(path),
    ".arrow": arrow,
}
COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_and_compression_gives_the_same_rows(kind: str, compression: str, tmp_path: Path) -> None:
    WRITERS[kind](pd.DataFrame(ROWS, columns=[*COLUMNS]), tmp_path / "plain")
    content = COMPRESS[compression]((tmp_path / "plain").read_bytes())
    text = kind in (".csv", ".tsv")
    for suffix in (kind + compression, (kind + compression).upper()):
        found = pairs(file(tmp_path, f"rows{suffix}", content))
        assert found == [(sentence, str(label) if text else label) for sentence, label in ROWS]
    if compression:
        with pytest.raises(UsageError, match=f"cannot be decompressed as {compression}"):
            pairs(file(tmp_path, f"cut{kind}{compression}", content[:-9]))
        with pytest.raises(UsageError, match=f"compressed; add {compression} to its name"):
            pairs(file(tmp_path, f"misnamed{kind}", content))


def test_tsv_is_read_as_glue_writes_it_without_any_quoting(tmp_path: Path) -> None:
    sentences = ['"a charming tale', 'a dull film"', 'he said "no"', '"', '""', 'a "b', 'it\'s "c" ', "a, b; c"]
    path = file(tmp_path, "rows.tsv", "sentence\tlabel\n" + "".join(f"{text}\t1\n" for text in sentences))
    assert pairs(path) == [(text, "1") for text in sentences]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("kind", "separator"), [("csv", ","), ("tsv", "\t")])
def test_line_ends_of_every_system(kind: str, separator: str, end: str, tmp_path: Path) -> None:
    lines = [separator.join(COLUMNS), *(f"{text}{separator}{label}" for text, label in ROWS)]
    for content in (end.join(lines), end.join(lines) + end, end.join(lines) + end * 3):
        assert pairs(file(tmp_path, f"rows.{kind}", content)) == [(text, str(label)) for text, label in ROWS]


def test_quotes_of_csv(tmp_path: Path) -> None:
    content = 'sentence,label\n"a, b",1\n"he said ""no""",0\nplain "quotes" inside,1\n"two\nlines",0\n'
    found = read(file(tmp_path, "rows.csv", content))
    sentences = ["a, b", 'he said "no"', 'plain "quotes" inside', "two\nlines"]
    assert [row["sentence"] for row in found.train.rows] == sentences
    assert [row.place for row in found.train.rows] == ["row 1 (line 2)", "row 2 (line 3)", "row 3 (line 4)", "row 4 (line 5)"]
    assert not found.warnings


def test_a_quote_left_open_in_csv_is_never_silent(tmp_path: Path) -> None:
    rows = ["one,0", '"a charming tale,1', "three,0", 'four",1', "five,0"]
    warnings = read(file(tmp_path, "rows.csv", "\n".join(["sentence,label", *rows]))).warnings
    assert len(warnings) == 1 and "row 2 (line 3)" in warnings[0] and "lost" in warnings[0]
    with pytest.raises(UsageError, match=r"row 2 \(line 3\): a quote is opened there and never closed"):
        read(file(tmp_path, "rows.csv", "\n".join(["sentence,label", *rows[:3]])))


def test_a_backslash_that_may_be_an_escape_is_said(tmp_path: Path) -> None:
    """Read by the rule, since it can be read so; but a tool that escapes would have meant two other fields."""
    found = read(file(tmp_path, "rows.csv", 'sentence,label\n"C:\\",1\nplain,0\n'))
    assert found.train.rows[0]["sentence"] == "C:\\"
    assert "row 1 (line 2) holds a backslash before a quote" in found.warnings[0]


def test_a_tsv_that_was_quoted_like_csv_is_said(tmp_path: Path) -> None:
    frame = pd.DataFrame([("plain", 0), ('he said "no"', 1)], columns=[*COLUMNS])
    WRITERS[".tsv"](frame, tmp_path / "rows.tsv")
    assert "row 2 (line 3) holds quotes as csv writes them" in read(tmp_path / "rows.tsv").warnings[0]


def test_sentences_that_are_numbers_stay_text(tmp_path: Path) -> None:
    """Also where ten thousand numbers come before the first word, and where a number would lose digits."""
    numbers = [*map(str, range(10_000)), "007", "1e3", "nan", "NA", "1.50", "a word"]
    path = file(tmp_path, "rows.csv", "sentence,label\n" + "".join(f"{text},1\n" for text in numbers))
    assert [sentence for sentence, _ in pairs(path)] == numbers


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "a film, of note,1\n", r"row 1 \(line 2\): 3 fields, but the header names 2 .* put quotes around"),
        ("rows.csv", "good,1\n\na film, of note,1\n", r"row 2 \(line 4\): 3 fields"),
        ("rows.csv", '"he said \\"no\\" to it",0\n', r'row 1 \(line 2\): a quote inside quotes is written \\"; csv doubles it'),
        ("rows.csv", '"a \\", b",0\n', "3 fields"),
        ("rows.csv", '"a" b,0\n', "text follows a closing quote"),
        ("rows.csv", "good,1,\n", "remove the separator at the end"),
        ("rows.tsv", "good\t1\t\n", "remove the separator at the end"),
        ("rows.tsv", "good\t1\tannotator7\n", "3 fields, but the header names 2 .* name every column in the first row"),
        ("rows.tsv", "good\n", "1 field, but .* fill in the missing ones"),
        ("rows.csv", "", "the file is empty: it holds no row"),
    ],
)
def test_every_row_has_as_many_fields_as_the_header(name: str, content: str, message: str, tmp_path: Path) -> None:
    header = "sentence,label\n" if name.endswith("csv") else "sentence\tlabel\n"
    with pytest.raises(UsageError, match=message):
        read(file(tmp_path, name, header + content))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "sentence;label\na;1\n", "looks separated by semicolons, not commas; save it with commas"),
        ("rows.csv", "sentence\tlabel\na\t1\n", "looks separated by tabs, not commas; name it .tsv"),
        ("rows.tsv", "sentence,label\na,1\n", "looks separated by commas, not tabs; name it .csv"),
        ("rows.csv", "sentence|label\na|1\n", "vertical bars"),
        ("rows.csv", "sentence,label,label\na,0,1\n", "two columns are named 'label'"),
        ("rows.tsv", "label\tsentence\tsentence\n1\ta\tb\n", "two columns are named 'sentence'"),
        ("rows.csv", "text,label\na,1\n", "no column 'sentence'; found 'text', 'label'; .*--column sentence=..."),
        ("rows.csv", "Sentence,LABEL\na,1\n", "no column 'sentence'; .*--column sentence=Sentence says which is meant"),
        ("rows.csv", "a dull film,0\na fine film,1\n", "no column 'sentence'; found 'a dull film', '0'; the first row names"),
        ("rows.json", '{"sentence": {"0": "a"}, "label": {"0": 1}}', "columns, not rows; .*orient='records'"),
        ("rows.json", '{"sentence": ["a", "b"], "label": [1, 0]}', "columns, not rows"),
        ("rows.jsonl", '{"sentence": "a", "label": 0},\n{"sentence": "b", "label": 1}', "row 1 ends in a comma"),
        ("rows.jsonl", '{"sentence": "a", "label": 0}\n{"sentence": "b"', "line 2: no JSON"),
        ("rows.jsonl", '{"sentence": "a", "label": 0, "label": 1}', "line 1: two values are named 'label'"),
        ("rows.jsonl", '{"sentence": "a", "label": 0}\n\n{"label": 1}', r"row 2 \(line 3\): no column 'sentence'"),
        ("rows.jsonl", '{"sentence": "a\\ud800", "label": 0}', "row 1: half of a surrogate pair"),
        ("rows.jsonl", '["a", 1]', "row 1: expected an object"),
        ("rows.json", "[" * 100_000, "line 1: nested too deeply"),
        ("rows.json", "[]", "the file is empty"),
        ("rows.json", "  \n", "the file is empty"),
        ("rows.csv", "", "the file is empty"),
        ("rows.csv", "\n\n", "the file is empty"),
        ("rows.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        ("rows.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        ("rows.csv", "<!DOCTYPE html>\n", "a web page"),
        ("rows.csv", b"PK\x03\x04", "a zip archive"),
        ("rows.csv", b"PAR1", "a parquet file; name it .parquet"),
        ("rows.parquet", b"PAR1", "cannot be read as .parquet"),
    ],
)
def test_what_a_file_is_instead(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read(file(tmp_path, name, content))


def test_a_column_without_a_name_is_an_index(tmp_path: Path) -> None:
    pd.DataFrame(ROWS, columns=[*COLUMNS]).to_csv(tmp_path / "rows.csv")
    assert pairs(tmp_path / "rows.csv") == [(text, str(label)) for text, label in ROWS]


@pytest.mark.parametrize(
    "content",
    [
        '{"sentence": "a\\u2028b", "label": 1}\r\n\r\n{"sentence": "c\u2028d", "label": 0}',
        '[{"sentence": "a\\u2028b", "label": 1}, {"sentence": "c\u2028d", "label": 0}]',
        '{\n "sentence": "a\\u2028b",\n "label": 1\n}\n{\n "sentence": "c\u2028d",\n "label": 0\n}\n',
        '{"version": "1.1", "data": [{"sentence": "a\\u2028b", "label": 1}, {"sentence": "c\u2028d", "label": 0}]}',
    ],
)
def test_json_in_every_form(content: str, tmp_path: Path) -> None:
    for name in ("rows.json", "rows.jsonl"):
        assert pairs(file(tmp_path, name, content)) == [("a\u2028b", 1), ("c\u2028d", 0)]


def test_nested_values_stay_as_they_are(tmp_path: Path) -> None:
    rows = [{"sentence": "a", "label": 0, "answers": {"text": ["x", "y"], "start": [3, 5]}, "n": 7}]
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    file(tmp_path, "rows.jsonl", json.dumps(rows[0]))
    for name in ("rows.parquet", "rows.jsonl"):
        assert dict(read(tmp_path / name).train.rows[0].values) == rows[0]


def test_a_data_set_of_the_hub_as_it_is_saved(tmp_path: Path) -> None:
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["positive", "negative"])})
    data = Dataset.from_dict({"sentence": ["a", "b"], "label": [0, 1]}, features=features)
    data.to_parquet(tmp_path / "train.parquet")
    data.save_to_disk(tmp_path / "saved" / "train")
    for path in (tmp_path / "train.parquet", tmp_path / "saved"):
        assert pairs(path) == [("a", 0), ("b", 1)]
        assert read(path).train.label_names == {"label": ("positive", "negative")}


ACCENTS = "sentence,label\nun café très médiocre,0\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "utf-32"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    path = file(tmp_path, "rows.csv", ACCENTS.encode(encoding))
    assert pairs(path, encoding=encoding) == [("un café très médiocre", "0")]
    if encoding.startswith("utf-8"):
        assert pairs(path) == [("un café très médiocre", "0")]
    else:
        with pytest.raises(UsageError, match="--encoding"):
            pairs(path)


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("é".encode("latin-1"), None, "line 2 is no text in UTF-8; say --encoding latin-1"),
        ("é".encode("latin-1"), "ascii", "line 2 is no text in ascii"),
        (b"a,1", "klingon", "--encoding klingon: not known; try utf-8"),
        (b"a,1", "base64", "--encoding base64: not known"),
        (b"a,1", "utf\0", "not known"),
        (b"a\0,1", None, "zero bytes"),
    ],
)
def test_encodings_that_are_wrong(content: bytes, encoding: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        pairs(file(tmp_path, "rows.csv", b"sentence,label\n" + content), encoding=encoding)


def test_columns_by_other_names(tmp_path: Path) -> None:
    path = file(tmp_path, "rows.csv", "text,sentence,label\na,b,1\n")
    assert pairs(path, columns={"sentence": "text"}) == [("a", "1")]
    assert pairs(path, columns={"sentence": "text", "label": "sentence"}) == [("a", "b")]
    for columns, message in [
        ({"sentence": "txt"}, "--column sentence=txt: .*no column 'txt'; found 'text', 'sentence', 'label'"),
        ({"sentense": "text"}, "--column sentense=...: the task has no such column; it has sentence, label"),
    ]:
        with pytest.raises(UsageError, match=message):
            pairs(path, columns=columns)


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        (["sentence"], None, "--column sentence: expected TASK'S=FILE'S"),
        (["=text"], None, "expected"),
        (["sentence=a", "sentence=b"], None, "give it once"),
        ([], "good", None),
        ([], "good,", "--labels good,: expected different words"),
        ([], "good,Good", "expected different words"),
    ],
)
def test_options_for_files(columns: list[str], labels: str | None, message: str | None) -> None:
    if message is None:
        assert DataOptions.parse(None, columns, labels).labels == ("good",)
        return
    with pytest.raises(UsageError, match=message):
        DataOptions.parse(None, columns, labels)
