"""From the values of a row to what a task needs: a text, or the number of a label."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench.errors import UsageError
from workloads.rows.table import DataOptions, Row, Table, shortened


def text_of(row: Row, column: str) -> str:
    """The column's text; a number is the text it is written as. UsageError where there is none, naming the row."""
    value = row[column]
    if isinstance(value, int | float) and not (isinstance(value, float) and math.isnan(value)):
        value = json.dumps(value)
    if not isinstance(value, str) or not value.strip():
        raise row.error(f"the {column} is empty or no text")
    return value


def labels_of(
    table: Table, column: str, names: Sequence[str], options: DataOptions | None = None, also: Mapping[str, int] | None = None
) -> list[int]:
    """The number of each row's label, from 0. names: the task's words for 0, 1, ...; also: further words, in small letters.

    Taken are the numbers (1, "1", 1.0, "1.0") and the words, in small or capital letters; with --labels the user's words alone.
    A file that names its numbers itself (ClassLabel), in another order than the task, is understood by its names.
    UsageError for anything else, naming the row.
    """
    given = options.labels if options else ()
    if given and len(given) != len(names):
        raise UsageError(f"--labels {','.join(given)}: the task has {len(names)} labels ({', '.join(names)}); name each once")
    words = {_word(word): number for number, word in enumerate(given or names)}
    own = [_word(word) for word in table.label_names.get(column, ())]
    numbers = [words[word] for word in own] if {*own} == {*words} else range(len(names))
    accepted = words if given else {str(value): number for value, number in enumerate(numbers)} | dict(also or {}) | words
    expected = " or ".join(given) if given else ", ".join(f"{number} ({name})" for number, name in enumerate(names))
    return [_label(row, column, accepted, expected, named=bool(given)) for row in table.rows]


def _label(row: Row, column: str, accepted: dict[str, int], expected: str, *, named: bool) -> int:
    value = row[column]
    word = _word(value)
    if word in accepted:
        return accepted[word]
    if word == "-1":
        raise row.error(f"{column} -1 marks an unlabelled row, as in test sets; give rows with labels (train or validation)")
    if word in ("", "nan", "none", "null"):
        raise row.error(f"the {column} is missing ({shortened(value)}); fill it in or remove the row")
    rest = "" if named else "; --labels gives the file's words for them, in that order"
    raise row.error(f"{column} {shortened(value)}; expected {expected}{rest}")


def _word(value: Any) -> str:
    """One spelling for each label: 1, 1.0, "1.0" and " 1" are "1"; words in small letters."""
    text = str(value).strip().casefold()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def one_label_warning(labels: Sequence[int], names: Sequence[str], where: str) -> list[str]:
    """A warning, where all labels are the same."""
    counts = Counter(labels)
    if len(counts) > 1 or not counts:
        return []
    return [f"{where}: all {len(labels)} rows have the label {names[next(iter(counts))]}: nothing can be learned from them"]
