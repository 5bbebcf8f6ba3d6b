"""JSON, parquet and arrow: values keep their structure, so a row may hold lists and nested columns."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from bench.errors import UsageError
from workloads.rows.table import Row, Table, shortened

SPACE = re.compile(r"[ \t\r\n]*")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(text: str, where: str) -> Table:
    """Objects one after the other (JSON lines, or spread over lines), one array of them, or an object whose `data` is one."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    found: list[tuple[Any, int]] = []
    position = _skip(text, 0)
    line = 1 + text.count("\n", 0, position)
    while position < len(text):
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise UsageError(f"--data {where}: line {error.lineno}: no JSON: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise UsageError(f"--data {where}: line {line}: {reason}") from None
        found.append((value, line))
        after = _skip(text, end)
        line, position = line + text.count("\n", position, after), after
        if text.startswith(",", position):
            raise UsageError(
                f"--data {where}: row {len(found)} ends in a comma; JSON lines have none: remove them, or put [ ] around all"
            )
    rows = _rows(found, where)
    if SURROGATE.search(text):
        _check_unicode(rows)
    return Table(tuple(rows))


def _skip(text: str, position: int) -> int:
    match = SPACE.match(text, position)
    return match.end() if match else position


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"two values are named {Counter(key for key, _ in pairs).most_common(1)[0][0]!r}; remove one")
    return found


def _rows(values: list[tuple[Any, int]], where: str) -> list[Row]:
    only = values[0][0] if len(values) == 1 else None
    inner = only.get("data") if isinstance(only, dict) else only
    if isinstance(only, dict) and _columns(only):
        raise UsageError(f"--data {where}: it holds columns, not rows; write one object for each row (pandas: orient='records')")
    wrapped = isinstance(inner, list) and (inner is only or all(isinstance(item, dict) for item in inner))
    rows: list[tuple[Any, int | None]] = [(item, None) for item in inner or ()] if wrapped else [*values]
    found = []
    for number, (value, line) in enumerate(rows, start=1):
        row = Row(value if isinstance(value, dict) else {}, where, number, line)
        if not isinstance(value, dict):
            raise row.error(
                f'expected an object with the columns, as in {{"sentence": "...", "label": 1}}; found {shortened(value)}'
            )
        found.append(row)
    return found


def _columns(value: dict[str, Any]) -> bool:
    """Whether an object is a table by columns: lists of one length, or objects with the same keys."""
    parts = list(value.values())
    if len(parts) < 2 or not all(isinstance(part, list | dict) and len(part) == len(parts[0]) for part in parts):
        return False
    return all(isinstance(part, list) for part in parts) or all(
        isinstance(p, dict) and p.keys() == parts[0].keys() for p in parts
    )


def _check_unicode(rows: list[Row]) -> None:
    for row in rows:
        try:
            json.dumps(row.values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise row.error("half of a surrogate pair stands alone there, which is no character; remove it") from None


def read_columns(content: bytes, kind: str, where: str) -> Table:
    """A parquet file, or an arrow file as `datasets` saves it. The words of a ClassLabel come with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = pa.BufferReader(content)
        if kind == ".parquet":
            table = pq.ParquetFile(source, page_checksum_verification=True).read()
        else:
            table = (pa.ipc.open_file if content.startswith(b"ARROW1") else pa.ipc.open_stream)(source).read_all()
        table.validate(full=True)  # a damaged file can make reading its values end the process
        names = list(table.column_names)
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UsageError(f"--data {where}: two columns are named {shortened(twice[0])}; rename or remove one")
        values = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"--data {where}: cannot be read as {kind}: {reason}") from None
    rows = tuple(Row(value, where, number) for number, value in enumerate(values, start=1))
    return Table(rows, label_names=_class_labels(table.schema.metadata or {}))


def _class_labels(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """What `datasets` notes in a file about its columns of ClassLabel."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: tuple(about["names"]) for name, about in features.items() if about.get("_type") == "ClassLabel"}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
